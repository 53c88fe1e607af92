from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdem.errors import UserError
from latentdem.io.masks import as_mask

COUNTS = np.ones((20, 24), bool)
COUNTS[5:9, 3:7] = False


def expect(mask: object) -> None:
    made = as_mask(mask, 20, 24)
    assert made.dtype == torch.float32
    np.testing.assert_array_equal(made[0, 0].numpy() > 0, COUNTS)


@pytest.mark.parametrize("white", [1, 200, 255])
def test_mask_in_any_two_levels(tmp_path: Path, white: int) -> None:
    Image.fromarray((COUNTS * white).astype(np.uint8)).save(tmp_path / "m.png")
    expect(tmp_path / "m.png")
    expect(str(tmp_path / "m.png"))
    expect(Image.open(tmp_path / "m.png"))


def test_mask_as_jpeg(tmp_path: Path) -> None:
    Image.fromarray((COUNTS * 255).astype(np.uint8)).save(tmp_path / "m.jpg", quality=80)
    expect(tmp_path / "m.jpg")


def test_mask_as_array_or_tensor() -> None:
    for mask in (COUNTS, COUNTS.astype(np.uint8) * 255, COUNTS.astype(float), torch.from_numpy(COUNTS)):
        expect(mask)
    expect(torch.from_numpy(COUNTS)[None, None].float())
    assert as_mask(np.stack([COUNTS, COUNTS]), 20, 24, images=2).shape == (2, 1, 20, 24)


@pytest.mark.parametrize("kind", ["erased", "black strokes", "white strokes"])
def test_mask_drawn_in_the_transparency(tmp_path: Path, kind: str) -> None:
    picture = np.zeros((20, 24, 4), np.uint8)
    if kind == "erased":
        picture[..., :3] = np.random.default_rng(0).integers(0, 255, (20, 24, 3))
        picture[..., 3] = 255 * COUNTS
    elif kind == "black strokes":
        picture[..., 3] = 255 * ~COUNTS
    else:
        picture[COUNTS] = 255
    Image.fromarray(picture).save(tmp_path / "m.png")
    expect(tmp_path / "m.png")


def test_pictures_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="not in black and white"):
        as_mask(tmp_path / "m.png", 20, 24)
    with pytest.raises(UserError, match="24 x 20 pixels and the image 20 x 20"):
        as_mask(COUNTS, 20, 20)
    with pytest.raises(UserError, match="No pixel"):
        as_mask(np.zeros((20, 24)), 20, 24)
    with pytest.raises(UserError, match="has the shape"):
        as_mask(np.ones((1, 3, 20, 24)), 20, 24)
    with pytest.raises(UserError, match="not int"):
        as_mask(3, 20, 24)
