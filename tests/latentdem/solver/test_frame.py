from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext
from latentdem.solver.frame import Frame, filled
from latentdem.solver.measurement import Measurement

Scene = Callable[..., Tensor]


@pytest.mark.parametrize("size", [3, 8, 15])
def test_padded_grid_sees_no_wrapping(scene: Scene, size: int) -> None:
    """What is measured of a circular blur on the padded grid is a blur without wrapping."""
    frame = Frame.extended(40, 50, size, 16)
    rows, columns = frame.grid
    assert rows % 16 == columns % 16 == 0
    x = scene(rows, columns)
    kernel = torch.rand(1, 1, size, size)
    measured = frame.crop(ext.blur(x, kernel))
    changed = x.clone()
    far = frame.mask() == 0
    # A pixel further from the frame than the kernel reaches must not matter.
    reach = torch.nn.functional.max_pool2d((~far).float(), 2 * size + 1, 1, size) > 0
    changed[~reach.expand_as(x)] += 1
    torch.testing.assert_close(frame.crop(ext.blur(changed, kernel)), measured)
    top, left = frame.offset
    direct = torch.nn.functional.conv2d(
        x.transpose(0, 1)[..., top - (size - 1 - size // 2) : top + 40 + size // 2,
                          left - (size - 1 - size // 2) : left + 50 + size // 2],
        kernel.flip(-1, -2),
    ).transpose(0, 1)  # fmt: skip
    torch.testing.assert_close(measured, direct, atol=1e-4, rtol=1e-4)


def test_place_and_crop_are_inverse(scene: Scene) -> None:
    y = scene(37, 41)
    for frame in (Frame.circular(37, 41), Frame.extended(37, 41, 9)):
        placed = frame.place(y)
        assert placed.shape[-2:] == frame.grid
        assert torch.equal(frame.crop(placed), y)
        mask = frame.mask()
        assert (mask is None) == frame.is_circular
        assert mask is None or mask.sum() == 37 * 41


@pytest.mark.parametrize(("pixels", "side"), [(300, 352), (500, 576), (575, 640), (350, 384)])
def test_sides_of_the_grid_transform_fast(pixels: int, side: int) -> None:
    """544 = 32 * 17 and 608 = 32 * 19 take three to six times as long as 576 and 640."""
    assert Frame.extended(pixels, pixels, 31, 32).grid == (side, side)


@pytest.mark.parametrize("size", [(9, 14), (8, 7)])
def test_filled_values_are_those_of_a_picture_half_the_size_interpolated(size: tuple[int, int]) -> None:
    y = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1)) > 0.3).float()
    mask[..., ::2, ::2] = 1  # so that no square of 2 x 2 pixels is empty
    halves = F.avg_pool2d(y * mask, 2, ceil_mode=True) / F.avg_pool2d(mask, 2, ceil_mode=True)
    expected = torch.where(mask > 0, y, F.interpolate(halves, size, mode="bilinear", align_corners=False))
    torch.testing.assert_close(filled(y, mask), expected)


def test_a_measurement_is_continued_so_that_it_wraps_around_smoothly() -> None:
    ramp = torch.linspace(-1, 1, 40).expand(1, 3, 30, 40) + torch.linspace(-0.5, 0.5, 30)[:, None]
    frame = Frame.extended(30, 40, 9)
    found = frame.wrap(Measurement(ramp, torch.tensor([0.01])))
    assert found.mask is None
    assert found.circular
    assert found.y.shape[-2:] == frame.grid
    assert torch.equal(frame.crop(found.y), ramp)
    for axis in (-2, -1):  # without, the steps would be 1 and 2
        assert (found.y - found.y.roll(1, axis)).abs().max() < 0.45
