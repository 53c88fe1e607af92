"""Fields of view that files know, and pictures of cameras turned towards the object."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from latentdem.three_d.lens import field_of_view, focal_length, turned_towards
from latentdem.three_d.pictures import Crops


def exif_of(millimetres: float, width: int = 0, height: int = 0, orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    tags[ExifTags.Base.FocalLengthIn35mmFilm] = millimetres
    if width:
        tags[ExifTags.Base.ExifImageWidth], tags[ExifTags.Base.ExifImageHeight] = width, height
    return exif


def test_the_focal_length_refers_to_the_diagonal():
    """A lens of 36 mm shows 53.1 degrees along the longer side of film, 36 mm."""
    focal = focal_length(exif_of(36).tobytes(), 3600, 2400)
    assert focal == pytest.approx(3600)
    assert math.degrees(field_of_view(focal, 3600, 2400)) == pytest.approx(53.13, abs=0.01)
    assert focal_length(exif_of(36, 3600, 2400).tobytes(), 1200, 1800) == pytest.approx(1800)


@pytest.mark.parametrize(
    "exif", [None, b"damaged", exif_of(0).tobytes(), exif_of(36, 3600, 2400).tobytes(), Image.Exif().tobytes()]
)
def test_without_a_trustworthy_focal_length_there_is_none(exif):
    """The last but one is of a picture that was cropped to a square since."""
    assert focal_length(exif, 1000, 1000) is None


def ball(size: tuple[int, int], focal: float, towards: tuple[float, float], radius: float) -> np.ndarray:
    """Pixels (H, W) whose rays are nearer than `radius` to a direction with these tangents right and down."""
    down, right = np.mgrid[: size[0], : size[1]] + 0.5
    rays = np.stack([(right - size[1] / 2) / focal, (down - size[0] / 2) / focal, np.ones(size)], -1)
    axis = np.array([*towards, 1.0])
    cosine = rays @ axis / np.linalg.norm(rays, axis=-1) / np.linalg.norm(axis)
    return cosine > math.cos(radius)


def extent(mask: torch.Tensor) -> tuple[int, int]:
    seen = mask > 0.5
    return int(seen.any(1).sum()), int(seen.any(0).sum())


def test_a_ball_off_the_axis_is_round_again():
    """A pinhole camera shows a ball as an ellipse that is 1 / cos(30 degrees) times as long as it is wide."""
    shape = torch.from_numpy(ball((300, 600), 300.0, (math.tan(math.radians(30)), 0.0), 0.1)).float()
    high, wide = extent(shape)
    assert wide / high == pytest.approx(1 / math.cos(math.radians(30)), abs=0.03)
    columns = shape.any(0).nonzero()
    middle = float(columns.min() + columns.max() + 1) / 2, 150.0
    turned = turned_towards(shape[None, None], 300.0, middle, wide)
    high, wide = extent(turned[0, 0])
    assert abs(high - wide) <= 1
    assert wide == pytest.approx(2 * 300 * math.tan(0.1), abs=2)
    rows = (turned[0, 0] > 0.5).any(1).nonzero()
    assert float(rows.min() + rows.max() + 1) / 2 == pytest.approx(turned.shape[-2] / 2, abs=1)


def test_an_object_on_the_axis_stays_as_it_is():
    assert turned_towards(torch.zeros(1, 4, 40, 60), 50.0, (30.2, 20.1), 12) is None


def saved(path, focal: float, size: tuple[int, int], direction: float, orientation: int = 1) -> str:
    shape = ball(size, focal, (math.tan(direction), 0.0), 0.12)
    picture = np.where(shape[..., None], np.array([200, 30, 30]), 245).astype(np.uint8)
    millimetres = focal * math.hypot(36, 24) / math.hypot(*size)
    Image.fromarray(picture).save(path, quality=95, exif=exif_of(round(millimetres), orientation=orientation))
    return str(path)


def sides(crops: Crops) -> list[int]:
    return [max(extent(picture.mask)) for picture in crops.pictures()]


def test_pictures_of_other_sizes_are_scaled_alike_if_their_fields_of_view_are_known(tmp_path):
    """The same ball at the same distance, in a small picture and in a large one that is turned by EXIF."""
    small = saved(tmp_path / "small.jpg", 240.0, (200, 300), 0.0)
    large = saved(tmp_path / "large.jpg", 720.0, (600, 400), 0.2, orientation=6)
    first, second = sides(Crops([small, large], 64, ["small", "large"]))
    assert abs(first - second) <= 2
    nearer = saved(tmp_path / "nearer.jpg", 480.0, (200, 300), 0.0)
    first, second = sides(Crops([small, nearer], 64, ["small", "nearer"]))
    assert abs(first - second) <= 2  # twice as many pixels, of half the angle each


def test_pictures_of_one_camera_held_upright_and_not_are_scaled_alike():
    flat, upright = (np.full((*size, 3), 245, np.uint8) for size in ((60, 90), (90, 60)))
    flat[20:40, 30:50] = upright[30:40, 20:30] = [200, 30, 30]
    first, second = sides(Crops([flat, upright], 64, ["flat", "upright"]))
    assert second == pytest.approx(first / 2, abs=1)


def test_a_picture_knows_its_field_of_view(tmp_path):
    path = saved(tmp_path / "ball.jpg", 240.0, (200, 300), 0.0)
    (picture,) = Crops([path], 64, ["ball"]).pictures()
    assert math.degrees(picture.field_of_view) == pytest.approx(64, abs=1.5)
