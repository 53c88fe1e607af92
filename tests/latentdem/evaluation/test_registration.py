from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from latentdem.errors import UserError
from latentdem.evaluation.registration import score_aligned
from latentdem.metrics import psnr, ssim

Scene = Callable[..., Tensor]


def moved(image: Tensor, down: float, right: float) -> Tensor:
    """The image moved by bilinear interpolation."""
    grid = np.mgrid[: image.shape[-2], : image.shape[-1]].astype(float)
    at = [grid[0] - down, grid[1] - right]
    planes = [map_coordinates(plane, at, order=1, mode="nearest") for plane in image[0].double().numpy()]
    return torch.from_numpy(np.stack(planes))[None].float()


def exhaustive(image: Tensor, reference: Tensor, border: int) -> float:
    """PSNR at the best of all quarter-pixel shifts up to 3 pixels, one after the other."""
    inner = (..., slice(border, -border), slice(border, -border))
    shifts = np.arange(-3, 3.01, 0.25)
    return max(psnr(moved(image, a, b)[inner], reference[inner]) for a in shifts for b in shifts)


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-4, 5)])
def test_whole_pixel_shift_is_undone(scene: Scene, shift: tuple[int, int]) -> None:
    reference = scene(56, 64)
    score = score_aligned(reference.roll((-shift[0], -shift[1]), (-2, -1)), reference)
    assert score.shift == shift
    assert score.psnr > 100
    assert score.ssim == pytest.approx(1)


def test_best_shift_is_that_of_an_exhaustive_search(scene: Scene) -> None:
    reference = scene(48, 52)
    image = moved(reference, 1.25, -0.75)
    score = score_aligned(image, reference, radius=2, border=8)
    assert score.psnr == pytest.approx(exhaustive(image, reference, 8), abs=1e-3)


@pytest.mark.parametrize("shift", [(1.25, -0.75), (-3.5, 4.25), (0.0, 0.5)])
def test_quarter_pixel_shift_of_a_smooth_image_is_found(shift: tuple[float, float]) -> None:
    y, x = torch.meshgrid(torch.arange(56.0), torch.arange(60.0), indexing="ij")

    def smooth(down: float, right: float) -> Tensor:
        return (0.5 * torch.sin((y - down) / 4) + 0.4 * torch.cos((x - right + y - down) / 5))[None, None]

    score = score_aligned(smooth(*shift), smooth(0, 0))
    assert score.shift == (-shift[0], -shift[1])
    assert score.psnr > 40


def test_figures_are_those_of_the_moved_image_inside_the_border(scene: Scene) -> None:
    reference = scene(60, 60, channels=1)
    image = moved(reference, 0.5, 2.25) + 0.1
    inner = (..., slice(15, -15), slice(15, -15))
    score = score_aligned(image, reference)
    back = moved(image.clamp(-1, 1), *score.shift)[inner]
    assert score.psnr == pytest.approx(psnr(back, reference[inner]), abs=1e-4)
    assert score.ssim == pytest.approx(ssim(back, reference[inner]), abs=1e-4)


def test_images_that_cannot_be_compared_are_refused(scene: Scene) -> None:
    with pytest.raises(UserError, match="both must be the same"):
        score_aligned(scene(60, 60), scene(60, 60, channels=1))
    with pytest.raises(UserError, match="border of 15 pixels"):
        score_aligned(scene(40, 60), scene(40, 60))
