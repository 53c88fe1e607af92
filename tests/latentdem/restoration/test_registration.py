"""The motion between two pictures of a scene, and photographs moved by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.transform import EuclideanTransform
from torch import Tensor

from latentdem.errors import UserError
from latentdem.restoration.registration import central_motion, motion_between, moved_back, moved_mask

Scene = Callable[..., Tensor]


def motion(degrees: float, down: float, right: float, side: int) -> EuclideanTransform:
    """A turn about the middle of an image, and a shift."""
    middle = (side - 1) / 2
    return (
        EuclideanTransform(translation=(-middle, -middle))
        + EuclideanTransform(rotation=np.deg2rad(degrees))
        + EuclideanTransform(translation=(middle + right, middle + down))
    )


@pytest.mark.parametrize(("degrees", "down", "right"), [(0, 3, -5), (0, 0.5, 1.25), (0.5, -2, 1), (-2, 0, 4)])
def test_the_motion_is_found(scene: Scene, degrees: float, down: float, right: float) -> None:
    image = scene(128, 128)
    # The image shows at motion(p) what the reference has at p.
    reference = moved_back(image, motion(degrees, down, right, 128))
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    found = motion_between(image + noise, reference)
    turned, shift = central_motion(found, 128, 128)
    assert turned == pytest.approx(degrees, abs=0.1)
    assert shift == pytest.approx((down, right), abs=0.1)


def test_other_scenes_are_refused(scene: Scene) -> None:
    with pytest.raises(UserError, match="do not show one scene"):
        motion_between(scene(96, 96), scene(96, 96, seed=1))


def test_pictures_without_details_are_refused(scene: Scene) -> None:
    with pytest.raises(UserError, match="do not show one scene"):
        motion_between(torch.zeros(1, 3, 96, 96), scene(96, 96))


def test_a_shift_by_whole_pixels_is_exact(scene: Scene) -> None:
    image, moved_by = scene(40, 48), EuclideanTransform(translation=(3, -2))
    moved, mask = moved_back(image, moved_by), moved_mask(torch.ones(1, 1, 40, 48), moved_by)
    torch.testing.assert_close(moved[..., 2:, :-3], image[..., :-2, 3:], atol=1e-6, rtol=0)
    expected = torch.zeros(1, 1, 40, 48)
    expected[..., 2:, :-3] = 1
    torch.testing.assert_close(mask, expected)


def test_pixels_that_a_hole_enters_do_not_count() -> None:
    mask = torch.ones(1, 1, 20, 20)
    mask[..., 10, 10] = 0
    moved = moved_mask(mask, EuclideanTransform(translation=(0.5, 0)))
    assert moved[0, 0, 10, 9] == moved[0, 0, 10, 10] == 0
    assert moved[0, 0, 5, 5] == 1
