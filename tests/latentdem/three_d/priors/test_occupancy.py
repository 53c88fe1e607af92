"""The network that estimates the volume of an object from all known views."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from latentdem.errors import UserError
from latentdem.priors.loading import load_network
from latentdem.three_d.geometry.cameras import EXTENT, RADIUS, grid_points
from latentdem.three_d.priors.framing import Framing
from latentdem.three_d.priors.frustum import cells
from latentdem.three_d.priors.network import FeatureVolume
from latentdem.three_d.priors.occupancy import GRID, INK, NOTHING, SCALE, Occupancy

from ..tiny_priors import inputs, tiny

CAMERAS = torch.tensor([[1.2, 0.0, RADIUS], [1.0, 0.7, RADIUS]])


def network(trained: bool = True) -> Occupancy:
    """A network whose corrections are not zero, as they are before training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Occupancy(4, (4, 8, 8))
        if trained:
            torch.nn.init.normal_(model.conv_out.weight)
    return model.eval().requires_grad_(False)


@pytest.fixture
def volume() -> FeatureVolume:
    """Volumes of two views of a ball: opaque within .3 of the origin."""
    opacity, features, picture = [], [], []
    generator = torch.Generator().manual_seed(0)
    for camera in CAMERAS:
        inside = cells(camera[None], 16, 16)[0].norm(dim=-1) < 0.3
        opacity.append(torch.where(inside, 0.97, 0.03)[None])
        features.append(torch.randn(12, 8, 8, 8, generator=generator))
        shown = inside.any(0).float()
        picture.append(F.interpolate((-0.8 * shown).expand(1, 3, -1, -1), (32, 32))[0])
    return FeatureVolume.of(torch.stack(opacity), torch.stack(features), torch.stack(picture))


def known(model: Occupancy, volume: FeatureVolume) -> tuple[torch.Tensor, torch.Tensor]:
    return model.known_at(volume, CAMERAS[None], grid_points(GRID)[None])


def test_untrained_it_is_the_mean_opacity(volume):
    points = grid_points(GRID)
    prior = tiny()
    expected = prior.network.opacity_at(volume, CAMERAS[None], points[None])[0]
    found = network(trained=False).at(volume, CAMERAS, points)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_what_is_known_inside_and_outside_a_ball(volume):
    x, mean = known(network(), volume)
    assert x.shape == (1, 4 + 7, GRID, GRID, GRID)
    opacity, lowest, highest, least, covered, shown, height = x[0, :7]
    radius = grid_points(GRID).norm(dim=-1)
    inside, outside = radius < 0.2, (radius > 0.45) & (radius < 0.55)
    assert (mean[0][inside] > 3).all()
    assert (opacity[outside & (covered == 0)] * SCALE < -3).all()
    assert (least[inside] > 0.999).all()
    assert (lowest <= opacity + 1e-5)[inside].all()
    assert (opacity <= highest + 1e-5)[inside].all()
    assert (shown[radius < 0.55] == 1).all()
    line = torch.linspace(-EXTENT, EXTENT, GRID) / 0.6
    torch.testing.assert_close(height[5, 7], line)


def test_one_outline_alone_excludes_a_point(volume):
    """The smallest share of outlines is 0 beside what the second view shows, though the first shows it."""
    x, _ = known(network(), volume)
    alone, _ = network().known_at(
        FeatureVolume(*(part[:1] for part in volume)), CAMERAS[None, :1], grid_points(GRID)[None]
    )
    least, seen = x[0, 3], alone[0, 3]
    assert (least <= seen + 1e-6).all()
    assert ((least == 0) & (seen == 1)).any()


def test_points_that_no_view_shows_are_outside(volume):
    away = torch.full((1, 4, 4, 4, 3), 5.0)
    x, mean = network().known_at(volume, CAMERAS[None], away)
    assert (mean == NOTHING).all()
    assert not x[0, 5].any()


def test_it_is_zero_outside_the_cube(volume):
    model = network()
    corner = torch.full((1, 3), EXTENT)
    assert model.at(volume, CAMERAS, corner) > 0
    assert not model.at(volume, CAMERAS, corner * 1.01).any()


def test_objects_do_not_depend_on_each_other(volume):
    """Two objects with volumes of their own, one of them seen from elsewhere."""
    model, points = network(), grid_points(8)[None]
    other = FeatureVolume(*(part.flip(-1) for part in volume))
    both = FeatureVolume(*(torch.cat(parts) for parts in zip(volume, other, strict=True)))
    cameras = torch.stack([CAMERAS, CAMERAS + torch.tensor([0.1, 0.4, 0.0])])
    x, logits = model.known_at(both, cameras, points.expand(2, -1, -1, -1, -1))
    for row, alone in enumerate((volume, other)):
        one, mean = model.known_at(alone, cameras[row : row + 1], points)
        torch.testing.assert_close(x[row], one[0])
        torch.testing.assert_close(logits[row], mean[0])
    assert (x[0] - x[1]).abs().max() > 0.1


def test_double_precision_is_kept(volume):
    model, points = network(), grid_points(8)
    found = model.at(FeatureVolume(*(part.double() for part in volume)), CAMERAS.double(), points.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), model.at(volume, CAMERAS, points), atol=1e-5, rtol=1e-4)


def test_the_same_views_again_change_nothing(volume):
    again = [i % 2 for i in range(8)]
    several, points = FeatureVolume(*(part[again] for part in volume)), grid_points(GRID)
    found, _ = network().known_at(several, CAMERAS[None, again], points[None])
    middle = points.norm(dim=-1) < 0.5  # further away, parts of the surroundings are in no view
    torch.testing.assert_close(found[0, :, middle], known(network(), volume)[0][0, :, middle])


def test_networks_of_another_prior_are_refused():
    with pytest.raises(UserError, match="'occupancy' belongs to another prior; train it again"):
        tiny(occupancy=Occupancy(16, (4, 8, 8)))
    with pytest.raises(UserError, match="'framing' belongs to another prior"):
        tiny(framing=Framing())


def test_the_order_of_views_does_not_matter(volume):
    model, points = network(), grid_points(GRID)
    swapped = FeatureVolume(*(part.flip(0) for part in volume))
    torch.testing.assert_close(
        model.at(swapped, CAMERAS.flip(0), points), model.at(volume, CAMERAS, points), atol=1e-5, rtol=1e-4
    )


def test_points_between_those_of_the_grid_are_interpolated(volume):
    model = network()
    points = grid_points(GRID)
    whole = torch.logit(model.at(volume, CAMERAS, points).double())
    between = torch.logit(model.at(volume, CAMERAS, (points[3, 4:9, 5] + points[3, 5:10, 5]) / 2).double())
    torch.testing.assert_close(between, (whole[3, 4:9, 5] + whole[3, 5:10, 5]) / 2, atol=1e-4, rtol=1e-4)


def test_light_grounds_are_no_outline(volume):
    """White with the errors of a camera or of a decoder is still white."""
    nearly = volume.picture.clone()
    nearly[:, :3] = torch.where(nearly[:, :3] == 0, -INK / 2, nearly[:, :3])
    torch.testing.assert_close(
        known(network(), volume._replace(picture=nearly))[0], known(network(), volume)[0]
    )


def test_the_prior_asks_it():
    model = network()
    prior, without = tiny(occupancy=model), tiny()
    condition = prior.condition(inputs(prior)[0])
    poses, points = torch.tensor([[0.0, 0.0, 0.0], [-0.2, 0.7, 0.0]]), grid_points(8)
    assert condition.polar is not None
    cameras = poses + torch.tensor([float(condition.polar[0]), 0.0, RADIUS])
    expected = model.at(FeatureVolume(*condition.parts), cameras, points)
    torch.testing.assert_close(prior.filled(condition, poses, points), expected)
    assert (
        prior.filled(condition, poses, points) - without.filled(condition, poses, points)
    ).abs().max() > 0.01


def test_weights_are_read_again(tmp_path, volume):
    model = network()
    model.save_pretrained(tmp_path)
    again = load_network(Occupancy, tmp_path)
    torch.testing.assert_close(known(again, volume), known(model, volume))
    assert math.isclose(float(again.conv_out.weight[0, 0]), float(model.conv_out.weight[0, 0]))
