from __future__ import annotations

import torch

from latentdem.solver.frame import Frame
from latentdem.solver.measurement import Measurement

SIGMA = torch.tensor([0.01, 0.02])


def test_measured_window_is_everything_without_a_mask() -> None:
    measurement = Measurement(torch.zeros(2, 3, 20, 24), SIGMA)
    assert measurement.measured_window == (slice(0, 20), slice(0, 24))
    assert measurement.window(*measurement.measured_window).circular


def test_measured_window_of_a_padded_grid_is_the_photograph() -> None:
    y = torch.rand(2, 3, 20, 25, generator=torch.Generator().manual_seed(0))
    photograph = Measurement(y, SIGMA, None, circular=False)
    grid = Frame.extended(20, 25, 9).extend(photograph)
    assert grid.size == (32, 48)
    part = grid.window(*grid.measured_window)
    assert torch.equal(part.y, y)
    assert part.mask is not None
    assert part.mask.all()
    assert not part.circular


def test_measured_window_contains_holes_but_no_unmeasured_edge() -> None:
    mask = torch.zeros(1, 1, 20, 24)
    mask[..., 3, 5] = mask[..., 15, 20] = mask[..., 9, 2] = 1
    rows, columns = Measurement(torch.zeros(2, 3, 20, 24), SIGMA, mask).measured_window
    assert (rows, columns) == (slice(3, 16), slice(2, 21))


def test_measured_window_of_a_single_pixel() -> None:
    mask = torch.zeros(1, 1, 20, 24)
    mask[..., 7, 8] = 1
    assert Measurement(torch.zeros(2, 3, 20, 24), SIGMA, mask).measured_window == (slice(7, 8), slice(8, 9))
