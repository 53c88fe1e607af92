"""Ways to cut objects out of their pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.three_d import cutout
from latentdem.three_d.cutout import opacity_of, ways_of
from latentdem.three_d.pictures import Crops

NAMES = ["in/front.jpg", "in/side.jpg"]


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A background of soft spots in greens and browns, (H, W, 3) in [0, 255]."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(60, 140, (height // 8, width // 8, 3), dtype=np.uint8))
    soft = np.asarray(spots.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return (soft * [0.9, 1.1, 0.4] + rng.normal(0, 3, soft.shape)).clip(0, 255)


def photograph(size=(96, 128), radius=24, middle=(52, 70)) -> tuple[np.ndarray, np.ndarray]:
    """A blue and white ball in front of `textured`, (H, W, 3) uint8, and the mask (H, W) of the ball."""
    down, right = np.mgrid[: size[0], : size[1]]
    ball = (down - middle[0]) ** 2 + (right - middle[1]) ** 2 < radius**2
    picture = textured(*size)
    picture[ball] = [40, 60, 210]
    picture[ball & (down % 16 < 5)] = 235
    return picture.astype(np.uint8), ball


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).movedim(-1, 0)[None]


def overlap(found: Tensor, mask: np.ndarray) -> float:
    seen = found[0, 0].numpy() > 0.5
    return float((seen & mask).sum() / (seen | mask).sum())


@pytest.mark.parametrize("way", ["auto", "grabcut"])
def test_an_object_is_cut_out_of_a_textured_background(way):
    pytest.importorskip("cv2", reason="the extra three-d is not installed")
    picture, ball = photograph()
    found = opacity_of(tensor(picture), None, way, "ball.jpg")
    assert (found.how, found.sure) == ("grabcut", True)
    assert overlap(found.share, ball) > 0.95
    again = opacity_of(tensor(picture), None, way, "ball.jpg")
    assert torch.equal(found.share, again.share)


def test_large_pictures_are_cut_out_at_a_working_size_with_soft_edges():
    pytest.importorskip("cv2", reason="the extra three-d is not installed")
    picture, ball = photograph((600, 800), 150, (300, 420))
    found = opacity_of(tensor(picture), None, "grabcut", "ball.jpg")
    assert found.share.shape == (1, 1, 600, 800)
    assert overlap(found.share, ball) > 0.95
    assert ((found.share > 0.1) & (found.share < 0.9)).any()


def test_nothing_in_front_of_a_texture_is_one_sentence():
    pytest.importorskip("cv2", reason="the extra three-d is not installed")
    with pytest.raises(UserError, match=r"No object stands out from the background of wall\.jpg; .* --cutout"):
        opacity_of(tensor(textured(96, 128, 3)), None, "auto", "wall.jpg")


def test_transparency_comes_first_and_a_plain_background_second():
    picture, ball = photograph()
    alpha = torch.from_numpy(ball).float()[None, None]
    assert opacity_of(tensor(picture), alpha, "auto", "it").how == "alpha"
    picture[~ball] = 245
    assert opacity_of(tensor(picture), None, "auto", "it").how == "plain"
    assert opacity_of(tensor(picture), alpha, "plain", "it").how == "plain"
    assert opacity_of(tensor(picture), torch.ones_like(alpha), "auto", "it").how == "plain"


@pytest.mark.parametrize(
    ("way", "lack"), [("alpha", "no transparent part"), ("plain", "no background of one colour")]
)
def test_a_way_that_is_impossible_is_reported(way, lack):
    with pytest.raises(UserError, match=rf"ball\.jpg has {lack}; choose another way"):
        opacity_of(tensor(photograph()[0]), None, way, "ball.jpg")


def test_without_opencv_grabcut_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cutout, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        opacity_of(tensor(photograph()[0]), None, "grabcut", "ball.jpg")
    assert opacity_of(tensor(photograph()[0]), None, "auto", "ball.jpg").how == "whole"


def test_masks_are_found_by_the_names_of_the_pictures(tmp_path):
    for name in ("front.png", "side.webp", "side.txt"):
        (tmp_path / name).touch()
    assert ways_of(tmp_path, NAMES) == [tmp_path / "front.png", tmp_path / "side.webp"]
    assert ways_of(str(tmp_path / "front.png"), NAMES[:1]) == [str(tmp_path / "front.png")]
    assert ways_of("plain", NAMES) == ["plain", "plain"]
    with pytest.raises(UserError, match=r"no mask for in/top\.jpg in .*, for instance top\.png"):
        ways_of(tmp_path, ["in/top.jpg"])
    with pytest.raises(UserError, match="number of masks is 1, that of pictures 2"):
        ways_of(tmp_path / "front.png", NAMES)
    with pytest.raises(UserError, match="No way 'magic' to cut out objects; give one of auto, alpha"):
        ways_of("magic", NAMES)


def test_a_mask_says_where_the_object_is(tmp_path):
    picture, ball = photograph()
    Image.fromarray((255 * ball).astype(np.uint8)).save(tmp_path / "mask.png")
    crops = Crops([picture], 32, ["ball.jpg"], tmp_path / "mask.png")
    given, array = crops.pictures()[0], Crops([picture], 32, ["ball.jpg"], [ball]).pictures()[0]
    assert (crops.cut, given.how) == (True, "mask")
    assert torch.equal(given.pixels, array.pixels)
    with pytest.raises(UserError, match="128 x 96"):
        Crops([picture], 32, ["ball.jpg"], [ball[:-4]])


def test_a_sketch_outlines_what_was_cut_out_and_fades_the_rest():
    picture, ball = photograph((192, 256), 48, (104, 140))
    (found,) = Crops([picture], 32, ["ball.jpg"], [ball]).pictures()
    assert found.sketch.shape == (3, 144, 192)
    assert found.sketch[:, 78, 105].tolist() == pytest.approx(tensor(picture)[0, :, 104, 140].tolist(), abs=0.2)
    assert float(found.sketch[:, 10, 10].min()) > float(tensor(picture)[0, :, 13, 13].min())
    outline = torch.tensor([1.0, -0.2, -1.0])[:, None, None]
    assert int((found.sketch == outline).all(0).sum()) > 60
