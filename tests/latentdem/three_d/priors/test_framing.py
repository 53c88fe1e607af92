"""The network that estimates how high cameras are and where crops show the middle of an object."""

from __future__ import annotations

import math

import pytest
import torch

from latentdem.errors import UserError
from latentdem.priors.loading import load_network
from latentdem.three_d.geometry.cameras import POLAR_RANGE, RADIUS
from latentdem.three_d.pose_search.known_views import frame_crops
from latentdem.three_d.priors.framing import DEVIATIONS, Framing, standardised

from ..tiny_priors import crops, finite, tiny


def network(seed: int = 0) -> Framing:
    """An untrained network for the features of `tiny` priors."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Framing(32, 4, 8, 8, 16)
    return model.eval().requires_grad_(False)


def pictures(count: int = 3, size: int = 32) -> torch.Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) - 1


def features(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of views and of their mirror images."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 32, 4, 4, generator=generator), torch.randn(count, 32, 4, 4, generator=generator)


def test_estimates_are_cameras():
    """The estimates are averaged over a crop and its mirror image."""
    model, (own, flipped) = network(), features()
    cameras, _ = model.cameras(own, flipped)
    assert cameras.shape == (3, 5)
    assert not cameras[:, 1].any()
    direct, mirror = model(own)[0], model(flipped)[0]
    mirror = mirror * torch.tensor([1.0, 1.0, -1.0, 1.0])
    usual = torch.tensor([0.0, 0.0, RADIUS, 0.0, 0.0])
    torch.testing.assert_close(standardised(cameras + usual), (direct + mirror) / 2)


def test_heights_stay_in_the_range_that_was_learnt():
    model, (own, flipped) = network(), features()
    model.head[-1].bias[0] = 100.0
    assert torch.equal(model.cameras(own, flipped)[0][:, 0], torch.full((3,), POLAR_RANGE[1]))


def test_the_prior_gives_features_of_views_and_of_their_mirror_images():
    model, x = network(), pictures()
    prior = tiny(framing=model)
    expected = model.cameras(*(prior.network.overview(prior.encode(y), y) for y in (x, x.flip(-1))))
    for found, wanted in zip(prior.framing(x), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert prior.overview(x).shape == (3, 32, 4, 4)


def test_estimates_are_standardised():
    camera = torch.tensor(
        [[math.radians(70), 2.0, RADIUS, 0.0, 0.0], [math.radians(93), 0.0, RADIUS, -0.04, 0.08]]
    )
    expected = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, -1.0, 2.0]])
    torch.testing.assert_close(standardised(camera), expected, atol=1e-6, rtol=1e-5)
    further = torch.tensor([[math.radians(70), 0.0, RADIUS * math.exp(0.1), 0.0, 0.0]])
    torch.testing.assert_close(standardised(further)[0, 1], torch.tensor(1.0))


def test_mirrored_crops_have_mirrored_cameras():
    model, (own, flipped) = network(), features()
    (cameras, deviation), (mirrored, same) = model.cameras(own, flipped), model.cameras(flipped, own)
    torch.testing.assert_close(mirrored, cameras * torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0]))
    torch.testing.assert_close(same, deviation)


def test_crops_do_not_depend_on_each_other():
    prior, x = tiny(framing=network()), pictures()
    for all_of_them, one in zip(prior.framing(x), prior.framing(x[1:2]), strict=True):
        torch.testing.assert_close(all_of_them[1:2], one)


def test_deviations_are_those_of_the_cameras():
    """In their units: that of the logarithm of a distance times the distance."""
    model, (own, flipped) = network(), features()
    ways = [model(view)[1].exp().sqrt() * torch.tensor(DEVIATIONS) for view in (own, flipped)]
    cameras, deviation = model.cameras(own, flipped)
    polar, share, right, up = ((ways[0] + ways[1]) / 2).unbind(1)
    expected = torch.stack([polar, torch.zeros(len(own)), share * (RADIUS + cameras[:, 2]), right, up], 1)
    torch.testing.assert_close(deviation, expected)
    prior, x = tiny(framing=model), pictures()
    assert tiny().condition(x).deviation is None
    condition = prior.condition(x)
    torch.testing.assert_close(condition[torch.tensor([1])].deviation, prior.framing(x)[1][1:2])


def test_crops_follow_the_estimates_of_the_prior():
    prior = tiny(framing=network())
    cut = crops(prior.image_size)
    cut.one_distance = False
    pixels = torch.cat([picture.pixels for picture in cut.pictures()])
    cameras, deviation = prior.framing(pixels)
    assert cameras[:, 2:].abs().min() > 0
    expected = torch.cat([picture.pixels for picture in cut.framed(cameras).pictures()])
    recropped = frame_crops(cut, prior, torch.device("cpu"))
    assert torch.equal(torch.cat([picture.pixels for picture in recropped.pictures()]), expected)
    assert not torch.equal(expected, pixels)
    assert torch.equal(recropped.polar, cameras[:, 0])
    assert torch.equal(recropped.deviation, deviation)


def test_pictures_from_one_distance_share_its_estimate():
    """The mean by inverse variances, which is as sure as both together."""
    prior = tiny(framing=network())
    cut = crops(prior.image_size)
    assert cut.one_distance  # they have one size
    cameras, deviation = prior.framing(torch.cat([picture.pixels for picture in cut.pictures()]))
    precision = deviation[:, 2] ** -2
    cameras[:, 2] = (precision * cameras[:, 2]).sum() / precision.sum()
    expected = torch.cat([picture.pixels for picture in cut.framed(cameras).pictures()])
    framed = frame_crops(cut, prior, torch.device("cpu"))
    torch.testing.assert_close(torch.cat([picture.pixels for picture in framed.pictures()]), expected)
    torch.testing.assert_close(framed.deviation[:, 2], precision.sum().rsqrt().expand(len(precision)))
    assert torch.equal(framed.deviation[:, 3:], deviation[:, 3:])


@pytest.mark.parametrize("prior", [tiny(), finite()], ids=["embedded", "finite"])
def test_crops_are_unchanged_without_an_estimate(prior):
    cut = crops(prior.image_size)
    assert frame_crops(cut, prior, torch.device("cpu")) is cut


def test_other_sizes_are_refused():
    prior = tiny(framing=network())
    with pytest.raises(UserError, match="resize"):
        prior.framing(pictures(size=48))


def test_weights_are_read_again(tmp_path):
    model, views = network(), features()
    model.save_pretrained(tmp_path)
    again = load_network(Framing, tmp_path)
    torch.testing.assert_close(again.cameras(*views)[0], model.cameras(*views)[0])
