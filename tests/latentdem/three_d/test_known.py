"""Known views of crops: their principal points are found with the cameras, and they are cropped anew."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.pictures import Crops
from latentdem.three_d.pose_search.known_views import Known, find

from .test_view_prior import finite, tiny

RECIPE = ReconstructionConfig(hypotheses=2, refinements=4)


def crops(size: int, count: int = 2) -> Crops:
    """Of rectangles of two colours each."""
    images = []
    for i in range(count):
        colour, box = (200 - 60 * i, 30 + 20 * i, 30), (8 + 6 * i, 6 + 4 * i, 34, 40 - 2 * i)
        image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
        image.paste((*colour, 255), box)
        image.paste((250, 220, 40, 255), (box[0], box[1], box[0] + 9, box[1] + 12))
        images.append(image)
    return Crops(images, size, ["a", "b", "c"][:count])


def looked_at(prior, count: int = 2):
    cut = crops(prior.image_size, count)
    return cut, Known.of(cut.pictures(), prior, torch.device("cpu"), mirrored=True)


def found(prior, cut, known):
    done: list[float] = []
    generator = torch.Generator().manual_seed(0)
    beliefs, confidence = find(prior, known, cut, RECIPE, generator, done.append)
    assert done == sorted(done)
    assert done[-1] == 1
    assert confidence.shape == (len(known.pixels),)
    return beliefs


def test_pictures_and_their_mirror_images_agree_on_polar_angles():
    prior = tiny()
    _, known = looked_at(prior)
    both = [prior.condition(pixels).polar for pixels in (known.pixels, known.pixels.flip(-1))]
    torch.testing.assert_close(known.condition.polar, (both[0] + both[1]) / 2)
    assert torch.equal(known.turned.polar, both[1])
    plain = Known.of(known.pictures, prior, torch.device("cpu"), mirrored=False)
    assert plain.turned is None
    assert torch.equal(plain.condition.polar, both[0])


@pytest.mark.parametrize("count", [2, 3])
def test_principal_points_and_distances_of_crops_are_found(count):
    """Those that the crops were made anew by are the same in all beliefs."""
    prior = tiny()
    cut, known = looked_at(prior, count)
    beliefs = found(prior, cut, known)
    assert beliefs.cameras.shape[1:] == (count, 5)
    assert beliefs.cameras[..., 3:].any()
    assert beliefs.cameras[:, 1:, 2].any()
    assert torch.equal(
        beliefs.cameras[:, :, 2:], beliefs.cameras[:1, :, 2:].expand(len(beliefs.cameras), -1, -1)
    )
    assert not beliefs.cameras[:, 0, 1:3].any()


def single(prior):
    """In single precision."""
    for name in ("points", "colours", "cameras", "alphas_cumprod"):
        setattr(prior, name, getattr(prior, name).float())
    return prior


@pytest.mark.parametrize(("prior", "cropped"), [(tiny(), False), (single(finite()), True)])
def test_otherwise_there_are_none(prior, cropped):
    """Of pictures that are taken as they are, and of a prior that knows no cameras."""
    cut, known = looked_at(prior)
    beliefs = found(prior, cut if cropped else None, known)
    assert beliefs.cameras.shape[1:] == (2, 3)


def test_views_are_cropped_anew_around_the_origin():
    prior = tiny()
    cut, known = looked_at(prior)
    cameras = torch.tensor([[1.2, 0.0, 0.0, 0.05, 0.0], [1.3, 0.5, 0.1, -0.02, 0.1]])
    again = known.cropped_anew(cut, prior, cameras)
    expected = torch.cat([each.pixels for each in cut.framed(cameras).pictures()])
    assert torch.equal(again.pixels, expected)
    assert not torch.equal(again.pixels, known.pixels)
    assert again.turned is not None
