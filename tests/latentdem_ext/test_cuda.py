"""The CUDA backend on a GPU; tests/native runs the same kernels on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import latentdem_ext as ext
from latentdem_ext import _backends, _native, reference


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest error of a sample relative to the largest value of that sample."""
    samples = expected.shape[0]
    largest = expected.reshape(samples, -1).abs().amax(1)
    return float(((actual - expected).reshape(samples, -1).abs().amax(1) / largest).max())


def everything(x: Tensor, kernel: Tensor, y: Tensor, backend: str = "cuda") -> tuple[Tensor, ...]:
    """Every operation that the backend "cuda" has."""
    with ext.use_backend(backend):
        ones = torch.ones(x.shape[0], device=x.device)
        size = kernel.shape[-1]
        joint = ext.hqs_prepare(x[:, None], y, ones, size)
        single = ext.hqs_prepare(x[:, None], y, ones, size, per_channel=True)
        return (
            *ext.blur_fidelity(x, kernel, y),
            ext.blur_proximal(x, kernel, y, ones),
            *joint,
            *single,
            ext.hqs_kernel_update(kernel, joint),
            ext.hqs_kernel_update(kernel, single, project=False),
            ext.project_kernel(kernel - kernel.mean()),
        )


@pytest.mark.gpu
@pytest.mark.parametrize(
    "shape",
    [
        *((16, 16, 16), (33, 40, 31), (65, 64, 64), (250, 140, 129), (600, 401, 33)),
        *((64, 60, 64), (128, 77, 33), (256, 40, 17), (512, 129, 64), (1024, 70, 65)),  # columns in one kernel
    ],
)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (7, 3)])
def test_operations_are_those_of_the_reference(problem, shape, batch, channels):
    double = [value.cuda() for value in problem(batch, channels, shape)]
    singles = [value.float() for value in double]
    found, exact, reference_found = (
        everything(*singles),
        everything(*double, backend="reference"),
        everything(*singles, backend="reference"),
    )
    for actual, expected, single in zip(found, exact, reference_found, strict=True):
        assert actual.dtype == torch.float32
        assert actual.is_cuda
        assert error(actual, expected) <= max(1e-5, 2 * error(single, expected))


def masked(x: Tensor, kernel: Tensor, y: Tensor, mask: Tensor, backend: str = "cuda") -> tuple[Tensor, ...]:
    """The masked least squares, with and without a factor, by a fixed number of iterations."""
    rho = torch.logspace(-3, 0, x.shape[0], device=x.device).to(x)
    right, work = ext.reference.blur_kernel_gradient(x, mask * y, 9), {"tolerance": 0.0, "iterations": 5}
    factor = 20 * torch.eye(81, device=x.device).to(x).repeat(x.shape[0], 1, 1)
    with ext.use_backend(backend):
        return (
            *ext.masked_proximal(x, kernel, y, mask, rho, **work),
            *ext.masked_proximal(x, kernel, y, mask, rho, y, **work),
            *ext.masked_kernel_solve(x, mask, 100 * rho, right, **work),
            *ext.masked_kernel_solve(x, mask, 100 * rho, right, factor, **work),
        )


def mask_of(batch: int, height: int, width: int) -> Tensor:
    """A frame, and beside the first sample holes."""
    mask = torch.zeros(batch, 1, height, width)
    mask[..., height // 8 : -height // 7, width // 5 : -width // 9] = 1
    mask[1:] *= (torch.rand(mask[1:].shape) > 0.02).float()
    return mask


@pytest.mark.gpu
@pytest.mark.parametrize(
    "shape", [(16, 16, 9), (33, 40, 31), (352, 352, 27), (640, 544, 64), (608, 96, 31), (1260, 1210, 33)]
)
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (3, 3)])
def test_masked_least_squares_are_those_of_the_reference(problem, shape, batch, channels):
    double = [value.cuda() for value in problem(batch, channels, shape)]
    double.append(mask_of(batch, *shape[:2]).double().cuda())
    singles = [value.float() for value in double]
    found, exact, reference_found = (
        masked(*singles),
        masked(*double, backend="reference"),
        masked(*singles, backend="reference"),
    )
    for actual, expected, single in zip(found, exact, reference_found, strict=True):
        assert error(actual, expected) <= max(1e-5, 2 * error(single, expected))


@pytest.mark.gpu
def test_masked_least_squares_are_captured_and_the_same_at_every_run(problem):
    values = [value.cuda() for value in problem(3, 3, (160, 192, 27), torch.float32)]
    mask = mask_of(3, 160, 192).cuda()
    expected = masked(*values, mask)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), ext.use_backend("cuda"):
        x, fill = ext.masked_proximal(*values, mask, torch.full((3,), 0.01, device="cuda"))
    rho = torch.full((3,), 0.01, device="cuda")
    with ext.use_backend("cuda"):
        eager = ext.masked_proximal(*values, mask, rho)
    for _ in range(2):
        graph.replay()
        assert x.equal(eager[0])
        assert fill.equal(eager[1])
    for one, two in zip(masked(*values, mask), expected, strict=True):
        assert one.equal(two)


@pytest.mark.gpu
def test_work_goes_to_the_current_stream(problem):
    values = [value.cuda() for value in problem(2, 3, (64, 60, 32), torch.float32)]
    expected = everything(*values)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # work on any other stream would come too early
        later = [value.clone() for value in values]
        actual = everything(*later)
    stream.synchronize()
    for one, two in zip(actual, expected, strict=True):
        assert one.equal(two)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [16, 32, 64])
def test_iterations_are_captured_in_a_graph(problem, size):
    x, kernel, y = (value.cuda() for value in problem(3, 3, (80, 70, size), torch.float32))
    with ext.use_backend("cuda"):
        factors = ext.hqs_prepare(x[:, None], y, torch.ones(3, device="cuda"), size)

    def iterations(kernel: Tensor) -> Tensor:
        for _ in range(5):
            kernel = ext.project_kernel(ext.hqs_kernel_update(kernel, factors))
        return kernel

    iterations(kernel)
    start, graph = kernel.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        end = iterations(start)
    for _ in range(2):
        start.copy_(torch.rand_like(start))
        graph.replay()
        assert end.equal(iterations(start))


def denoiser_layers(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Random weights of the shape of the shipped denoiser."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(32, 2), (32, 32), (32, 32), (32, 32), (1, 32)]
    weights = [torch.randn(*s, 3, 3, generator=generator) * (2 / (9 * s[1])) ** 0.5 for s in shapes]
    biases = [0.1 * torch.randn(s[0], generator=generator) for s in shapes]
    return [w.cuda().to(dtype) for w in weights], [b.cuda().to(dtype) for b in biases]


@pytest.mark.gpu
@pytest.mark.parametrize("size", [9, 16, 31, 33, 64])
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_m_step_is_that_of_the_reference_and_captured(problem, size, batch):
    x, kernel, y = (value.cuda() for value in problem(batch, 3, (80, 70, size)))
    level = torch.linspace(0.02, 0.1, batch, device="cuda")
    with ext.use_backend("reference"):
        factors = ext.hqs_prepare(x[:, None], y, torch.full((batch,), 2e3, device="cuda"), size)
    expected = reference.hqs_m_step(kernel, factors, *denoiser_layers(torch.float64), level.double(), True, 5)
    single = kernel.float(), ext.HQSFactors(*(factor.float() for factor in factors))
    layers = denoiser_layers(torch.float32)
    own = reference.hqs_m_step(*single, *layers, level, True, 5)
    with ext.use_backend("cuda"):
        actual = ext.hqs_m_step(*single, *layers, level, iterations=5)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = ext.hqs_m_step(*single, *layers, level, iterations=5)
    assert error(actual, expected) <= max(1e-5, 2 * error(own, expected))
    for _ in range(2):
        graph.replay()
        assert replayed.equal(actual)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_second_device_is_used_whichever_is_current(problem):
    values = problem(2, 3, (40, 41, 17), torch.float32)
    first = everything(*(value.to("cuda:0") for value in values))
    second = everything(*(value.to("cuda:1") for value in values))
    assert torch.cuda.current_device() == 0
    for one, two in zip(first, second, strict=True):
        assert two.device == torch.device("cuda:1")
        torch.testing.assert_close(one.cpu(), two.cpu())


@pytest.mark.gpu
def test_errors_of_the_device_are_exceptions():
    with pytest.raises(RuntimeError, match="blur_glue: invalid device ordinal"):
        _backends.cuda.blur_glue(correction=0, x=0, glued=0, count=1, device=10_000, stream=0)
    values = torch.rand(4, device="cuda")  # the error was that call's alone
    _native.call_cuda("blur_glue", correction=values, x=values.clone(), glued=values.clone(), count=4)


@pytest.mark.skipif(_backends.cuda is None, reason=ext.backends()["cuda"].reason)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_module_loads_and_says_so():
    assert ext.backends()["cuda"] == ext.Backend(False, _backends.without_cuda_device())
    with pytest.raises(RuntimeError, match="blur_glue: "):
        _backends.cuda.blur_glue(correction=0, x=0, glued=0, count=1, device=0, stream=0)


def refusal(x: Tensor) -> str:
    return _native.cuda_refusal("x", x)


def test_refusals_say_why(monkeypatch):
    assert refusal(torch.zeros(1, 3, 8, 8)) == "x is on cpu, not on a CUDA device"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    _native._device_refusal.cache_clear()
    with FakeTensorMode():
        assert refusal(torch.zeros(1, 8, 8, device="cuda", dtype=torch.half)) == ("x is float16, not float32")
        monkeypatch.setattr(_backends, "cuda", None)
        assert not refusal(torch.zeros(1, 8, 8, device="cuda:1"))
        assert "points" in refusal(torch.zeros(1, 2**16, 2**15, device="cuda"))
        monkeypatch.setattr(_backends, "cuda", type("Module", (), {"oldest_architecture": 80}))
        assert refusal(torch.zeros(1, 8, 8, device="cuda:0")) == (
            "cuda:0 has compute capability 7.5, the module was built for 8.0 and newer"
        )
    _native._device_refusal.cache_clear()


def test_grids_that_are_refused(monkeypatch):
    with FakeTensorMode():
        monkeypatch.setattr(_backends, "cuda", None)
        assert not _native.grid_refusal("x", torch.zeros(1, 3, 64, 37, device="cuda"))
        module = type("Module", (), {"oldest_architecture": 80, "has_grid": staticmethod(lambda *_: False)})
        monkeypatch.setattr(_backends, "cuda", module)
        monkeypatch.setattr(_native, "_device_refusal", lambda _: "")
        assert _native.grid_refusal("x", torch.zeros(1, 3, 64, 37, device="cuda")) == (
            "x is 64 x 37: a side above 1260 pixels, or with a prime factor above 31"
        )
        assert "not float32" in _native.grid_refusal("x", torch.zeros(1, 3, 64, 64, device="cuda").half())


def test_padded_grid_is_a_power_of_two_where_it_fits_in_shared_memory():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [reference.padded_side(size, cuda) for size in (1, 16, 17, 33, 64)] == [32, 32, 64, 128, 128]
    assert [reference.padded_side(size, cpu) for size in (1, 16, 17, 33, 64)] == [2, 32, 36, 72, 128]
    assert reference.padded_side(65, cuda) == reference.padded_side(65, cpu) == 144
