from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentdem.operators.kernels import gaussian_kernel
from latentdem.restoration.kernel_search import coverage
from latentdem.restoration.unexplained import unexplained_share
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Candidates


def candidates(residual: list[float], error: list[float]) -> Candidates:
    n, zero = len(residual), torch.zeros(len(residual))
    image = torch.zeros(n, 3, 4, 4)
    return Candidates(image, image, torch.tensor(residual), zero, torch.tensor(error).square(), [])


def steps(height: float) -> Tensor:
    """Vertical stripes two pixels wide: every second horizontal difference is `height`."""
    row = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(8)[:31] * height
    return row.expand(1, 3, 31, 31)


def test_errors_beyond_the_noise_are_measured_in_units_of_the_contrast() -> None:
    y = steps(0.4).repeat(4, 1, 1, 1)
    measurement = Measurement(y, torch.full((4,), 0.01))
    contrast = (0.4**2 / 2 - 4 * 0.01**2) ** 0.5
    share = unexplained_share(measurement, candidates([0.01, 0.005, 0.05, 0.01], [0.01, 0.01, 0.01, 0.05]))
    excess = (0.05**2 - 0.01**2) ** 0.5
    assert share.tolist() == pytest.approx([0, 0, excess / contrast, excess / contrast], rel=1e-4, abs=1e-3)


def test_contrast_stays_positive_where_there_is_only_noise() -> None:
    share = unexplained_share(Measurement(steps(0.01), torch.tensor([0.02])), candidates([0.1], [0.02]))
    assert share.isfinite().all()
    assert share > 1


def test_pixels_that_do_not_count_make_no_contrast() -> None:
    mask = torch.ones(1, 1, 31, 31)
    mask[..., 20:, :] = 0
    y = steps(0.4).clone()
    sigma, tried = torch.tensor([0.01]), candidates([0.05], [0.01])
    expected = unexplained_share(Measurement(y[..., :20, :], sigma), tried)
    y[..., 20:, :] = torch.rand(11, 31)
    assert unexplained_share(Measurement(y, sigma, mask), tried) == pytest.approx(float(expected))


def test_a_small_kernel_is_never_said_to_be_wider_than_the_blur() -> None:
    small, large = gaussian_kernel(41, 1.0), gaussian_kernel(41, 4.0)  # radii of 1.4 and 5.7 pixels
    kernels = torch.cat([small, small, large, large])
    found = coverage(kernels, torch.tensor([0.7, 2.83, 2.83, 0.0])[:, None].expand(-1, 2))
    assert found[:3].tolist() == pytest.approx([1.0, 0.5, 2.0], rel=0.01)
    assert found[3].isfinite()
    assert found[3] > 2


def test_a_kernel_between_both_radii_of_a_small_photograph_covers_the_blur() -> None:
    kernels = torch.cat([gaussian_kernel(41, sigma) for sigma in (2.0, 3.0, 4.0)])  # radii of 2.8, 4.2 and 5.7
    found = coverage(kernels, torch.tensor([[4.0, 5.0]]).expand(3, -1))
    assert found.tolist() == pytest.approx([2.83 / 4, 1.0, 5.66 / 5], rel=0.01)
