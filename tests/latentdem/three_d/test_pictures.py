"""Objects cut out of their pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from latentdem.errors import UserError
from latentdem.three_d import cutout
from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, RADIUS
from latentdem.three_d.pictures import FILLED, Crops, Picture, check_distinct

RED, GREEN = (200, 30, 30), (30, 180, 60)


def picture(size=(60, 40), box=(10, 5, 22, 29), background=(240, 240, 240, 255)):
    """A red rectangle off the middle, with a hole of nearly the background's colour in it."""
    image = Image.new("RGBA", size, background)
    image.paste((*RED, 255), box)
    left, top, right, bottom = box
    image.paste((*background[:3], 255), (left + 4, top + 8, right - 4, bottom - 8))
    return image


def object_pictures(images, size, names):
    return Crops(images, size, names).pictures()


def object_picture(image, size, name):
    return object_pictures([image], size, [name])[0]


def extent(pixels):
    """First and last row and column that are not white."""
    seen = (pixels[0] < 0.9).any(0)
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return [int(i) for i in (rows.min(), rows.max(), columns.min(), columns.max())]


@pytest.mark.parametrize("kind", ["alpha", "plain", "dark"])
def test_object_is_centred_and_scaled(kind):
    backgrounds = {"alpha": (9, 9, 9, 0), "plain": (240, 240, 240, 255), "dark": (10, 10, 40, 255)}
    image = picture(background=backgrounds[kind])
    result = object_picture(image if kind == "alpha" else image.convert("RGB"), 64, "it")
    assert result.cut
    assert result.pixels.shape == (1, 3, 64, 64)
    top, bottom, left, right = extent(result.pixels)
    assert bottom - top + 1 == pytest.approx(FILLED * 64, abs=3)
    assert right - left + 1 == pytest.approx(FILLED * 64 * 12 / 24, abs=3)
    assert (top + bottom) / 2 == pytest.approx(31.5, abs=1.5)
    assert (left + right) / 2 == pytest.approx(31.5, abs=1.5)
    assert torch.equal(result.pixels[0, :, 0], torch.ones(3, 64))
    red = torch.tensor(RED) / 127.5 - 1
    torch.testing.assert_close(result.pixels[0, :, 14, 32], red, atol=0.05, rtol=0)
    assert result.mask[14, 32] == pytest.approx(1)
    assert ((result.mask > 0.05) == (result.pixels[0] < 0.9).any(0))[:, :28].all()


def test_pictures_of_one_size_are_scaled_alike(monkeypatch):
    boxes = ((10, 5, 22, 29), (10, 15, 22, 21))
    tall, flat = object_pictures([picture(box=box) for box in boxes], 64, ["a", "b"])
    heights = [extent(result.pixels)[1] - extent(result.pixels)[0] + 1 for result in (tall, flat)]
    assert heights[0] == pytest.approx(FILLED * 64, abs=3)
    assert heights[1] == pytest.approx(heights[0] * 6 / 24, abs=3)
    # PosedViews of other sizes, or without a background that could be cut away, say nothing of the distance.
    other = object_pictures([picture(box=boxes[1]), picture((70, 40))], 64, ["a", "b"])[0]
    torch.testing.assert_close(other.pixels, object_picture(picture(box=boxes[1]), 64, "it").pixels)
    monkeypatch.setattr(cutout, "find_spec", lambda name: None)  # without OpenCV
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    beside = object_pictures([picture(box=boxes[1]).convert("RGB"), noise], 64, ["a", "b"])[0]
    assert extent(beside.pixels)[3] - extent(beside.pixels)[2] + 1 == pytest.approx(FILLED * 64, abs=5)


def test_crops_off_the_middle():
    """The object and its mask move by as many pixels as the principal point."""
    crops = Crops([picture((48, 48), (12, 12, 36, 36))], 32, ["it"])  # 32 pixels become 32
    pixel = 2 * RADIUS * math.tan(FIELD_OF_VIEW / 2) / 32

    def seen(*, away: float = 0.0, right: float = 0.0, up: float = 0.0) -> Picture:
        (found,) = crops.framed(torch.tensor([[1.2, 0.3, away, right * pixel, up * pixel]])).pictures()
        return found

    middle, aside = crops.pictures()[0], seen(right=4, up=-2)
    torch.testing.assert_close(seen().pixels, middle.pixels)
    torch.testing.assert_close(aside.pixels[..., :-2, :-4], middle.pixels[..., 2:, 4:])
    torch.testing.assert_close(aside.mask[:-2, :-4], middle.mask[2:, 4:])
    far = seen(right=30, up=30)
    assert torch.equal(far.pixels, torch.ones_like(far.pixels))
    half = seen(right=0.5).pixels
    expected = (middle.pixels[..., :-1] + middle.pixels[..., 1:]) / 2
    torch.testing.assert_close(half[..., :-1], expected, atol=1e-5, rtol=0)
    # From the usual distance the object is twice as large as from twice this distance, 48 pixels.
    assert extent(seen(away=RADIUS, right=12).pixels) == pytest.approx([0, 31, 0, 27], abs=1)


def test_a_hole_of_the_backgrounds_colour_stays():
    image = picture(background=(40, 40, 200, 255)).convert("RGB")
    middle = object_picture(image, 64, "it").pixels[0, :, 32, 32]
    torch.testing.assert_close(middle, torch.tensor([40, 40, 200]) / 127.5 - 1, atol=0.05, rtol=0)


def test_other_backgrounds_are_not_cut_away_without_opencv(monkeypatch):
    monkeypatch.setattr(cutout, "find_spec", lambda name: None)
    noise = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    result = object_picture(noise, 40, "it")
    assert not result.cut
    assert result.mask is None
    white = (result.pixels[0] > 0.999).all(0).all(1)
    assert white[:7].all()
    assert not white[9:30].any()


def test_files_sizes_and_kinds(tmp_path):
    wide = picture((90, 30), (40, 2, 70, 28)).convert("L")
    wide.save(tmp_path / "wide.png")
    cut = object_picture(tmp_path / "wide.png", 32, "it").pixels
    assert cut.shape == (1, 3, 32, 32)
    tensor = torch.from_numpy(np.asarray(wide).astype(np.float32) / 127.5 - 1)[None, None]
    torch.testing.assert_close(object_picture(tensor, 32, "it").pixels, cut)
    picture((40, 90), background=(0, 0, 0, 0)).save(tmp_path / "alpha.png")
    from_file = object_picture(tmp_path / "alpha.png", 32, "it").pixels
    torch.testing.assert_close(
        from_file, object_picture(picture((40, 90), background=(0, 0, 0, 0)), 32, "it").pixels
    )


@pytest.mark.parametrize(
    "image", [Image.new("RGBA", (40, 40), (9, 9, 9, 0)), Image.new("RGB", (40, 40), GREEN)]
)
def test_an_empty_picture_is_refused(image):
    with pytest.raises(UserError, match=r"No object was found in cup\.png"):
        object_picture(image, 32, "cup.png")


def test_several_images_in_one_are_refused():
    with pytest.raises(UserError, match="holds 2 images"):
        object_picture(torch.zeros(2, 3, 32, 32), 32, "it")


def test_identical_pictures_are_named():
    views = torch.rand(3, 3, 8, 8)
    check_distinct(views, ["a", "b", "c"])
    views[2] = views[0]
    with pytest.raises(UserError, match="c shows the same picture as a"):
        check_distinct(views, ["a", "b", "c"])


def test_only_the_part_with_the_object_is_stored():
    """Twenty large photographs are held in memory until their poses are found."""
    whole = picture((600, 400), (100, 50, 160, 170), (0, 0, 0, 0))
    (part,) = Crops([whole], 32, ["it"])._objects
    assert part.layers.shape == (1, 4, 122, 62)
    assert part.layers.untyped_storage().nbytes() == 4 * part.layers.numel()
    assert (part.top, part.bottom, part.left, part.right) == (1, 121, 1, 61)
    nearer = object_picture(whole.crop((90, 40, 200, 200)), 32, "it")
    torch.testing.assert_close(object_picture(whole, 32, "it").pixels, nearer.pixels)


def test_crops_of_crops():
    """Two cameras in succession act as one: distances multiply, and principal points scale with them."""
    crops = Crops([picture((96, 80), (20, 12, 56, 60))], 32, ["it"])
    first, second = torch.tensor([[0.0, 0.0, 0.2, 0.03, -0.05]]), torch.tensor([[0.0, 0.0, -0.1, 0.02, 0.06]])
    twice = crops.framed(first).framed(second).pictures()[0]
    there, again = RADIUS + first[0, 2], RADIUS + second[0, 2]
    once = torch.zeros(1, 5)
    once[0, 2] = there * again / RADIUS - RADIUS
    once[0, 3:] = first[0, 3:] * again / RADIUS + second[0, 3:]
    torch.testing.assert_close(twice.pixels, crops.framed(once).pictures()[0].pixels, atol=1e-4, rtol=0)
