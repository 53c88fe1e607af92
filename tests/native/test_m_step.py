"""The M-step in one launch, on the CPU, against the float64 reference and against separate operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import HQS, Blur
from latentdem.priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from latentdem_ext import HQSFactors, reference

pytestmark = pytest.mark.usefixtures("on_shim")

ORDERS = range(4)
Layers = tuple[Sequence[Tensor], Sequence[Tensor]]


@pytest.fixture(scope="module")
def shipped() -> KernelDenoiser:
    return load_kernel_denoiser()


def random_layers() -> Layers:
    """Weights that pass on as much as they are given, so that every layer shows in the result."""
    outputs, inputs = (32, 32, 32, 32, 1), (2, 32, 32, 32, 32)
    shapes = list(zip(outputs, inputs, strict=True))
    weights = [torch.randn(o, i, 3, 3) * (2 / (9 * i)) ** 0.5 for o, i in shapes]
    return weights, [0.1 * torch.randn(o) for o in outputs]


def in_double(layers: Layers) -> Layers:
    weights, biases = layers
    return [weight.double() for weight in weights], [bias.double() for bias in biases]


def problem(batch: int, size: int) -> tuple[Tensor, HQSFactors]:
    """A kernel to start from and factors of a blurred image, in float64."""
    generator = torch.Generator().manual_seed(size)
    shape = (max(24, size), max(29, size))
    x = torch.rand(batch, 3, *shape, generator=generator, dtype=torch.float64) * 2 - 1
    true, start = torch.rand(2, batch, 1, size, size, generator=generator, dtype=torch.float64)
    y = reference.blur(x, reference.project_kernel(true**4))
    factors = reference.hqs_prepare(x[:, None], y, torch.full((batch,), 2e3), size)
    return reference.project_kernel(start), factors


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest error of a sample relative to the largest value of that sample; NaN where anything is NaN."""
    largest = expected.abs().amax((1, 2, 3), keepdim=True)
    return float(((actual.double() - expected) / largest).abs().max())


@pytest.mark.parametrize(
    ("batch", "size"), [(1, 1), (3, 9), (1, 16), (3, 17), (1, 24), (1, 32), (1, 33), (3, 40)]
)
@pytest.mark.parametrize("weights", ["shipped", "random"])
@pytest.mark.parametrize("relative", [True, False])
def test_kernels_are_those_of_the_reference(shipped, batch, size, weights, relative):
    kernel, factors = problem(batch, size)
    layers = shipped.layers() if weights == "shipped" else random_layers()
    level = torch.linspace(0.05, 0.2, batch, dtype=torch.float64) * (1 if relative else 3 / size**2)
    iterations = 3 if size < 33 else 1
    expected = reference.hqs_m_step(kernel, factors, *in_double(layers), level, relative, iterations)
    single = (kernel.float(), HQSFactors(*(factor.float() for factor in factors)), *layers, level.float())
    own = reference.hqs_m_step(*single, relative, iterations)
    actual = ext.hqs_m_step(*single, relative=relative, iterations=iterations)
    assert actual.dtype == torch.float32
    assert actual.is_contiguous()
    assert error(actual, expected) <= max(1e-5, 2 * error(own, expected))


def test_the_largest_kernel(shipped):
    kernel, factors = problem(1, 64)
    layers, level = shipped.layers(), torch.tensor([0.05], dtype=torch.float64)
    expected = reference.hqs_m_step(kernel, factors, *in_double(layers), level, True, 1)
    single = (kernel.float(), HQSFactors(*(factor.float() for factor in factors)), *layers, level.float())
    own = reference.hqs_m_step(*single, True, 1)
    assert error(ext.hqs_m_step(*single, iterations=1), expected) <= max(1e-5, 2 * error(own, expected))


def test_twenty_iterations_stay_close_to_separate_operations(shipped):
    """As many as in the paper; the separate operations are those of an M-step with any other denoiser."""
    kernel, factors = problem(1, 13)
    level = torch.tensor([0.05])
    expected, exact_level = kernel, level.double()
    separate, single = kernel.float(), HQSFactors(*(factor.float() for factor in factors))
    for _ in range(20):
        expected = reference.hqs_m_step(expected, factors, *in_double(shipped.layers()), exact_level, True, 1)
        with ext.use_backend("reference"):
            separate = ext.hqs_kernel_update(separate, single)
            separate = ext.project_kernel(shipped.denoise(separate, level))
    actual = ext.hqs_m_step(kernel.float(), single, *shipped.layers(), level, iterations=20)
    assert error(actual, expected) <= max(1e-5, 2 * error(separate, expected))


def test_special_kernels(shipped):
    """Nothing positive, infinity or NaN in the data term: uniform or as in the reference, never NaN."""
    kernel, factors = problem(4, 11)
    kernel, factors = kernel.float(), HQSFactors(*(factor.float() for factor in factors))
    factors.data_term[1] = -1e6
    factors.data_term[2, 0, 3, 4] = torch.nan
    factors.data_term[3, 0, 3, 4] = torch.inf
    arguments = (kernel, factors, *shipped.layers(), torch.full((4,), 0.1))
    expected, actual = reference.hqs_m_step(*arguments, True, 2), ext.hqs_m_step(*arguments, iterations=2)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7)


def test_samples_do_not_mix_and_layouts_do_not_matter(shipped):
    kernel, factors = problem(3, 10)
    kernel, factors = kernel.float(), HQSFactors(*(factor.float() for factor in factors))
    level = torch.tensor([0.02, 0.05, 0.1])
    together = ext.hqs_m_step(kernel, factors, *shipped.layers(), level, iterations=2)
    for n in range(3):
        one = slice(n, n + 1)
        part = HQSFactors(factors.data_term[one], factors.filter[one])
        alone = ext.hqs_m_step(kernel[one], part, *shipped.layers(), level[one], iterations=2)
        assert alone.equal(together[one])
    turned = HQSFactors(*(factor.mT.contiguous().mT for factor in factors))
    weights, biases = shipped.layers()
    strided = [weight.contiguous() for weight in weights], [bias.repeat_interleave(2)[::2] for bias in biases]
    behind = torch.cat([torch.zeros(1), weights[4].flatten()])[1:]  # at an address that vectors cannot have
    strided[0][4] = behind.view_as(weights[4])
    again = ext.hqs_m_step(kernel.mT.contiguous().mT, turned, *strided, level.double(), iterations=2)
    assert again.equal(together)


def test_every_order_gives_the_same_bits(shipped, thread_order):
    results = []
    problems = [(2, 9), (1, 20), (1, 34)]
    for order in ORDERS:
        thread_order(order)
        for batch, size in problems:
            kernel, factors = problem(batch, size)
            single = kernel.float(), HQSFactors(*(factor.float() for factor in factors))
            level = torch.full((batch,), 0.05)
            results.append(ext.hqs_m_step(*single, *shipped.layers(), level, iterations=2 if size < 33 else 1))
    for order in ORDERS[1:]:
        for n in range(len(problems)):
            assert results[order * len(problems) + n].equal(results[n])


def test_new_weights_are_used():
    kernel, factors = problem(1, 9)
    single = kernel.float(), HQSFactors(*(factor.float() for factor in factors))
    weights, biases = random_layers()
    level = torch.full((1,), 0.1)
    before = ext.hqs_m_step(*single, weights, biases, level, iterations=1)
    weights[2].mul_(-1)
    after = ext.hqs_m_step(*single, weights, biases, level, iterations=1)
    torch.testing.assert_close(after, reference.hqs_m_step(*single, weights, biases, level, True, 1))
    assert not after.equal(before)


def test_empty_batch(shipped):
    kernel, factors = torch.rand(0, 1, 9, 9), HQSFactors(torch.rand(0, 1, 9, 9), torch.rand(0, 1, 32, 17))
    assert ext.hqs_m_step(kernel, factors, *shipped.layers(), torch.rand(0)).shape == kernel.shape


def test_launch_errors_are_exceptions(shim):
    arrays = dict.fromkeys(("kernel", "data_term", "filter", "level", "updated", "workspace"), 0)
    layers = {"weights": [0] * 5, "biases": [0] * 5}
    arguments = {**arrays, **layers, "batch": 1, "relative": True, "stream": 0}
    for size, side, iterations, device in ((17, 32, 1, 0), (3, 48, 1, 0), (3, 32, 0, 0), (3, 32, 1, 1)):
        numbers = {"size": size, "side": side, "iterations": iterations, "device": device}
        with pytest.raises(RuntimeError, match="hqs_m_step: invalid argument"):
            shim.hqs_m_step(**arguments, **numbers)
    with pytest.raises(TypeError):
        shim.hqs_m_step(**{**arguments, "weights": [0] * 4}, size=3, side=32, iterations=1, device=0)


@pytest.mark.parametrize("level", [None, 0.03])
@pytest.mark.parametrize("centre", [False, True])
def test_m_step_of_a_blur(shipped, level, centre):
    """`Blur` makes it of the same settings in one launch; other denoisers and settings do not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 30, 33, generator=generator) * 2 - 1
    kernels = torch.rand(4, 1, 11, 11, generator=generator) ** 4
    start, true = reference.project_kernel(kernels).split(2)
    arguments = x[:, None], reference.blur(x, true), start, torch.full((2,), 1e-3)
    hqs = HQS(3, 1e6, noise_level=level, centre=centre)

    def used(operator: Blur) -> tuple[Tensor, dict[str, list[str]]]:
        with ext.record_backends() as record:
            return operator.m_step(*arguments), record

    found, record = used(Blur(11, shipped, hqs))
    assert {"hqs_m_step", "hqs_kernel_update"} & set(record) == {"hqs_m_step"}
    expected, record = used(Blur(11, lambda *given: shipped.denoise(*given), hqs))
    assert {"hqs_m_step", "hqs_kernel_update"} & set(record) == {"hqs_kernel_update"}
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    for other in (replace(hqs, per_channel=True), replace(hqs, iterations=0)):
        assert "hqs_m_step" not in used(Blur(11, shipped, other))[1]
