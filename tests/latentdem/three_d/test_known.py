"""Known views of crops: their principal points are found with the cameras, and they are cropped anew."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from latentdem.three_d.cameras import shares
from latentdem.three_d.known import Known, find
from latentdem.three_d.pictures import Crops
from latentdem.three_d.poses import Beliefs
from latentdem.three_d.recipe import Recipe

from .test_view_prior import finite, tiny

RECIPE = Recipe(hypotheses=2, refinements=4)


def crops(size: int) -> Crops:
    """Of two rectangles of two colours each."""
    images = []
    for colour, box in (((200, 30, 30), (8, 6, 34, 40)), ((30, 60, 200), (14, 10, 40, 32))):
        image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
        image.paste((*colour, 255), box)
        image.paste((250, 220, 40, 255), (box[0], box[1], box[0] + 9, box[1] + 12))
        images.append(image)
    return Crops(images, size, ["a", "b"])


def looked_at(prior):
    cut = crops(prior.image_size)
    return cut, Known.of(cut.pictures(), prior, torch.device("cpu"), mirrored=True)


def found(prior, cut, known):
    done: list[float] = []
    generator = torch.Generator().manual_seed(0)
    beliefs, confidence = find(prior, known, cut, RECIPE, generator, done.append)
    assert done == sorted(done)
    assert done[-1] == 1
    assert confidence.shape == (2,)
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


def test_principal_points_of_crops_are_found():
    prior = tiny()
    cut, known = looked_at(prior)
    beliefs = found(prior, cut, known)
    assert beliefs.cameras.shape[1:] == (2, 5)
    assert (beliefs.cameras[..., 3:] != 0).all()
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
    again, same = known.cropped_anew(cut, prior, beliefs)
    assert again is known
    assert same is beliefs


def test_views_are_cropped_anew_around_the_origin():
    prior = tiny()
    cut, known = looked_at(prior)
    cameras = torch.tensor([[[1.2, 0.0, 0.0, 0.05, 0.0], [1.3, 0.5, 0.0, -0.02, 0.1]]])
    cameras = torch.cat([cameras, cameras + 0.03])
    again, beliefs = known.cropped_anew(cut, prior, Beliefs(cameras, torch.tensor([0.7, 0.3])))
    expected = torch.cat([each.pixels for each in cut.pictures(shares(cameras[0, :, 3:]))])
    assert torch.equal(again.pixels, expected)
    assert not torch.equal(again.pixels, known.pixels)
    assert again.turned is not None
    assert torch.equal(beliefs.cameras, cameras[..., :3])
    assert torch.equal(beliefs.weights, torch.tensor([0.7, 0.3]))
