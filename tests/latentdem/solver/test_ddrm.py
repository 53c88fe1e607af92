from __future__ import annotations

import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.kernels import gaussian_kernel
from latentdem.solver.ddrm import DDRMStep, SpectralStep

H, W, SIGMA = 6, 7, 0.1


def pixels(count: int = 1) -> Tensor:
    return torch.randn(count, 1, H, W, dtype=torch.float64)


def blur_matrix(kernel: Tensor) -> Tensor:
    """(H W, H W) of the blur."""
    units = torch.eye(H * W, dtype=torch.float64).view(-1, 1, H, W)
    return ext.blur(units, kernel.expand(H * W, -1, -1, -1)).flatten(1).T


def covariance(step: SpectralStep) -> tuple[Tensor, Tensor]:
    """The matrix of the old noise, and the covariance of the fresh one."""
    units, zeros = torch.eye(H * W, dtype=torch.float64).view(-1, 1, H, W), torch.zeros(H * W, 1, H, W).double()
    many = SpectralStep(torch.zeros_like(zeros), step.old, step.fresh)
    old, fresh = many.draw(units, zeros).flatten(1).T, many.draw(zeros, units).flatten(1).T
    return old, fresh @ fresh.T


def test_a_step_is_that_of_the_singular_value_decomposition() -> None:
    """Eq. 9 of GibbsDDRM with dense matrices; the blur has coefficients of all three cases."""
    kernel = gaussian_kernel(5, 1.1).double()
    x0, y = pixels(), pixels()
    sigma_next, (eta_b, eta_c, eta_d) = 0.3, (0.9, 0.8, 0.6)
    step = DDRMStep(eta_b, eta_c, eta_d)(
        x0, y, kernel, *(torch.tensor([value], dtype=torch.float64) for value in (SIGMA, sigma_next))
    )
    u, s, vt = torch.linalg.svd(blur_matrix(kernel))
    measurement, prediction = u.T @ y.flatten(), vt @ x0.flatten()
    noisier, unmeasured = (s >= 0.05) & (s * sigma_next >= SIGMA), s < 0.05
    assert noisier.any()
    assert unmeasured.any()
    assert (~noisier & ~unmeasured).any()
    mean = prediction + eta_c * sigma_next * (measurement - s * prediction) / SIGMA
    mean = torch.where(noisier, (1 - eta_b) * prediction + eta_b * measurement / s, mean)
    mean = torch.where(unmeasured, prediction, mean)
    variance = torch.full_like(s, (1 - eta_c**2) * sigma_next**2)
    variance = torch.where(noisier, sigma_next**2 - (eta_b * SIGMA / s) ** 2, variance)
    variance = torch.where(unmeasured, eta_d**2 * sigma_next**2, variance)
    torch.testing.assert_close(step.clean.flatten(), vt.T @ mean)
    old, fresh = covariance(step)
    torch.testing.assert_close(fresh, vt.T @ torch.diag(variance) @ vt)
    kept = torch.where(unmeasured, (1 - eta_d**2) ** 0.5 * sigma_next, 0.0).double()
    torch.testing.assert_close(old, vt.T @ torch.diag(kept) @ vt)


def test_the_variance_of_unmeasured_coefficients_is_that_of_the_schedule() -> None:
    kernel, levels = gaussian_kernel(5, 1.1).double(), torch.tensor([[SIGMA], [0.3]]).double()
    step = DDRMStep()(pixels(), pixels(), kernel, *levels)
    old, fresh = covariance(step)
    unmeasured = step.old > 0
    total = (step.old.square() + step.fresh.square())[unmeasured]
    torch.testing.assert_close(total, torch.full_like(total, 0.3**2))
    assert torch.trace(old) > 0
    assert torch.trace(fresh) > 0


def test_the_last_step_is_the_prediction() -> None:
    x0 = pixels()
    step = DDRMStep()(x0, pixels(), gaussian_kernel(5, 1.1).double(), *torch.tensor([[SIGMA], [0.0]]).double())
    torch.testing.assert_close(step.draw(pixels(), pixels()), x0)


def test_a_batch_has_its_own_levels() -> None:
    x0, y, kernel = pixels(2), pixels(2), torch.cat([gaussian_kernel(5, 0.8), gaussian_kernel(5, 1.1)]).double()
    levels = torch.tensor([[0.1, 0.2], [0.3, 0.05]], dtype=torch.float64)
    together = DDRMStep()(x0, y, kernel, *levels)
    for i in range(2):
        alone = DDRMStep()(x0[i : i + 1], y[i : i + 1], kernel[i : i + 1], *levels[:, i : i + 1])
        for mine, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(mine[i : i + 1], theirs)
