from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.blur import HQS, Blur, resize_kernel
from latentdem.operators.centring import centre_kernel
from latentdem.operators.kernels import delta_kernel, gaussian_kernel, motion_kernels
from latentdem.priors.kernel_denoiser import load_kernel_denoiser

Scene = Callable[..., Tensor]


def correlation(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.fixture
def mask() -> Tensor:
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., 9:-7, 11:-13] = 1
    return mask


@pytest.mark.parametrize("size", [8, 11])
def test_m_step_recovers_the_kernel_of_a_known_image(scene: Scene, size: int) -> None:
    x = torch.cat([scene(64, 64, seed=1), scene(64, 64, seed=2)])
    kernel = motion_kernels(2, size, 0.5, 3)
    operator = Blur(size, hqs=HQS(20, delta=1.0))
    variance = torch.full((2,), 1e-2)
    found = operator.m_step(
        x[:, None], ext.blur(x, kernel), gaussian_kernel(size, 2).repeat(2, 1, 1, 1), variance
    )
    assert correlation(found, kernel) > 0.999
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.ones(2))


def test_m_step_sums_over_samples(scene: Scene) -> None:
    """Two samples that each tell about one direction determine the kernel together."""
    noise = torch.rand(1, 1, 1, 64) * 2 - 1
    x = torch.stack([noise.expand(1, 3, 64, 64), noise.transpose(-1, -2).expand(1, 3, 64, 64)], 1)
    kernel = gaussian_kernel(9, 1.5)
    y = ext.blur(x[:, 0], kernel)
    operator = Blur(9, hqs=HQS(5, delta=1.0))
    start = delta_kernel(9)
    joint = ext.hqs_prepare(x, y, torch.ones(1), 9)
    found = operator.m_step(x, y, start, torch.ones(1))
    expected = start
    for _ in range(5):
        expected = ext.hqs_kernel_update(expected, joint)
    torch.testing.assert_close(found, expected)
    alone = operator.m_step(x[:, :1], y, start, torch.ones(1))
    assert not torch.allclose(found, alone, atol=1e-3)


@pytest.mark.parametrize("size", [8, 11])
@pytest.mark.parametrize("samples", [1, 2])
def test_m_step_uses_measured_pixels_only(scene: Scene, mask: Tensor, size: int, samples: int) -> None:
    """The kernel is found although everything unmeasured is nonsense, and the nonsense does not matter."""
    x = torch.cat([scene(48, 64, seed=seed) for seed in (1, 2)])
    kernel, start = motion_kernels(2, size, 0.5, 3), gaussian_kernel(size, 2).repeat(2, 1, 1, 1)
    operator = Blur(size, hqs=HQS(60, delta=1.0), mask=mask)
    y = ext.blur(x, kernel)
    found, same = (
        operator.m_step(
            x[:, None].repeat(1, samples, 1, 1, 1),
            torch.where(mask > 0, y, other),
            start,
            torch.full((2,), 1e-2),
        )
        for other in (5.0, -3.0)
    )
    assert torch.equal(found, same)
    for one, truth in zip(found, kernel, strict=True):
        assert correlation(one, truth) / float(one.norm() * truth.norm()) > 0.99


def test_fixed_kernel_is_unchanged(scene: Scene) -> None:
    x, kernel = scene(32, 32), gaussian_kernel(7, 1)
    assert Blur(7, fixed=True).m_step(x[:, None], x, kernel, torch.ones(1)) is kernel


def test_denoiser_gets_the_level_of_its_sample(scene: Scene) -> None:
    x, levels = scene(32, 32).repeat(2, 1, 1, 1), []

    def denoiser(kernel: Tensor, level: Tensor) -> Tensor:
        levels.append(level)
        return kernel

    start = gaussian_kernel(7, 1).repeat(2, 1, 1, 1)
    Blur(7, denoiser, HQS(2, noise_level=torch.tensor([0.1, 0.2]))).m_step(x[:, None], x, start, torch.ones(2))
    assert len(levels) == 2
    assert levels[0].tolist() == pytest.approx([0.1, 0.2])
    levels.clear()
    Blur(7, denoiser, HQS(1, delta=4e4)).m_step(x[:, None], x, start, torch.full((2,), 1e9))
    # The paper's absolute level sqrt(1 / delta), the kernel still being the one it started from.
    assert levels[0].tolist() == pytest.approx([0.005 / float(start.max())] * 2, rel=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_delta_is_scaled_to_the_number_of_pixels(scene: Scene, mask: Tensor, masked: bool) -> None:
    x, kernel = scene(48, 64), gaussian_kernel(9, 2)
    y, variance = ext.blur(x, motion_kernels(1, 9, 0.5, 3)), torch.full((1,), 4e-4)
    scaled, plain, other = (
        Blur(9, hqs=hqs, mask=mask if masked else None).m_step(x[:, None], y, kernel, variance)
        for hqs in (HQS(3, 4e6, 4 * 48 * 64), HQS(3, 1e6), HQS(3, 4e6))
    )
    torch.testing.assert_close(scaled, plain)
    assert (scaled - other).abs().max() > 1e-3


def test_masked_fidelity_counts_measured_pixels_only(scene: Scene, mask: Tensor) -> None:
    x, y, kernel = scene(48, 64).requires_grad_(), scene(48, 64, seed=5), gaussian_kernel(9, 2)
    operator = Blur(9, mask=mask)
    expected = (mask * (y - ext.blur(x, kernel))).square().sum()
    (gradient,) = torch.autograd.grad(expected, x)
    with torch.no_grad():
        norm2, found, glued = operator.fidelity(x, kernel, y)
        residual = operator.residual(x, kernel, y)
    torch.testing.assert_close(norm2[0], expected.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(glued, x.detach() - gradient / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(residual[0], (expected.detach() / (3 * mask.sum())).sqrt())


@pytest.mark.parametrize("shape", [(48, 64), (47, 61)])
def test_masked_proximal_step_finds_the_minimum_of_each_sample(scene: Scene, shape: tuple[int, int]) -> None:
    mask = torch.zeros(1, 1, *shape)
    mask[..., 5:-7, 9:-4] = 1
    x0, y = (torch.cat([scene(*shape, seed=seed) for seed in seeds]) for seeds in ((1, 2), (5, 6)))
    kernel, rho = torch.cat([gaussian_kernel(9, 2), gaussian_kernel(9, 0.7)]), torch.tensor([0.05, 0.5])
    x = ext.masked_proximal(x0, kernel, y, mask, rho, tolerance=1e-7)[0].requires_grad_()
    fidelity = (mask * (y - ext.blur(x, kernel))).square().sum((1, 2, 3))
    loss = fidelity + rho * (x - x0).square().sum((1, 2, 3))
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert gradient.abs().max() < 1e-4


def test_masked_proximal_step_stays_at_a_solution(scene: Scene, mask: Tensor) -> None:
    """Nothing is left to do: no direction, no division by zero."""
    x0, kernel = scene(48, 64), gaussian_kernel(9, 2)
    x = Blur(9, mask=mask).proximal(x0, kernel, mask * ext.blur(x0, kernel), torch.tensor([0.5]))
    torch.testing.assert_close(x, x0, atol=1e-5, rtol=0)


def test_kernel_denoiser_is_taken_as_it_is_loaded(scene: Scene) -> None:
    network, x, start = load_kernel_denoiser(), scene(48, 64), gaussian_kernel(9, 2)
    y = ext.blur(x, gaussian_kernel(9, 1))
    found, expected = (
        Blur(9, denoiser, HQS(3)).m_step(x[:, None], y, start, torch.full((1,), 0.01))
        for denoiser in (network, network.denoise)
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [9, 12])
def test_centre_kernel_moves_by_whole_pixels(size: int) -> None:
    kernel = torch.zeros(2, 1, size, size)
    kernel[0, 0, 1, 2] = 1
    kernel[1, 0, size - 2, 3:5] = 0.5
    moved = centre_kernel(kernel)
    assert moved[0, 0, size // 2, size // 2] == 1
    assert moved[1].max() == pytest.approx(0.5)
    rows = torch.arange(size) - size // 2
    for k in moved:
        assert abs(float((k[0].sum(1) * rows).sum())) <= 0.5
        assert abs(float((k[0].sum(0) * rows).sum())) <= 0.5


@pytest.mark.parametrize(("old", "new"), [(33, 64), (17, 33), (9, 18)])
def test_resize_kernel_scales_about_the_origin(old: int, new: int) -> None:
    enlarged = resize_kernel(gaussian_kernel(old, old / 10), new, 2.0)
    assert enlarged.shape == (1, 1, new, new)
    assert enlarged.sum() == pytest.approx(1)
    assert correlation(enlarged, gaussian_kernel(new, old / 5)) > 0.99
    assert int(enlarged.argmax()) == (new // 2) * new + new // 2
