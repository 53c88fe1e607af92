"""Several known views of one object: common opacity, adaptation, bundle adjustment and exchange."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.geometry.cameras import RADIUS, relative_pose
from latentdem.three_d.geometry.poses import PosePosterior
from latentdem.three_d.priors import adaptation
from latentdem.three_d.priors.adaptation import bundle
from latentdem.three_d.priors.frustum import cells, locate
from latentdem.three_d.priors.network import FeatureVolume
from latentdem.three_d.sampler import sample

from ..tiny_priors import inputs, tiny


def two_views():
    """A prior, its features of two known views, and their poses."""
    prior = tiny()
    poses = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.9, 0.0]])
    return prior, prior.condition(inputs(prior)[0]).at(torch.tensor([[1.2, 0.0, 0.0], [1.3, 0.0, 0.0]])), poses


CAMERAS = torch.tensor([[1.2, 0.0, RADIUS], [1.3, 0.9, RADIUS]])  # of `two_views`


def test_views_agree_on_the_opacity():
    """The logit of the mean odds at the centre of a cell, against the cameras' own opacities there."""
    prior, condition, _ = two_views()
    cameras, opacity = CAMERAS, condition.parts[1]
    agreed = prior.network.agree(FeatureVolume(*condition.parts), cameras)
    assert [part.shape for part in agreed] == [part.shape for part in condition.parts]
    plane, row, column = 8, 7, 9  # near the origin, which both cameras see
    point = cells(cameras[:1], 16, 16)[0, plane, row, column]
    positions = locate(point.expand(1, 1, 1, 1, 3), cameras[1:])
    other = torch.nn.functional.grid_sample(torch.logit(opacity[1:]), positions, align_corners=False)
    expected = torch.sigmoid((torch.logit(opacity[0, 0, plane, row, column]) + other.squeeze()) / 2)
    torch.testing.assert_close(agreed.opacity[0, 0, plane, row, column], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(agreed.features[:, :1], torch.nn.functional.avg_pool3d(agreed.opacity, 2))
    assert torch.equal(agreed.features[:, 1:], condition.parts[0][:, 1:])
    assert torch.equal(agreed.picture[:, :3], condition.parts[2][:, :3])


def prediction_errors(prior, condition):
    """A function of conditions: errors (2, 2) of each of `two_views` as predicted by each."""
    rows, targets = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    latents = condition.parts[0][:, 1 : 1 + prior.latent_shape[0], 0]
    return lambda changed: (
        (prior.posed(changed[rows], relative_pose(CAMERAS[targets], CAMERAS[rows])).mean - latents[targets])
        .square()
        .mean((1, 2, 3))
        .view(2, 2)
    )


def test_views_are_adapted_to_each_other():
    """Each predicts both better than before, and only features and opacity have changed."""
    prior, condition, poses = two_views()
    weights = {name: value.clone() for name, value in prior.network.state_dict().items()}
    errors = prediction_errors(prior, condition)
    with torch.no_grad():
        adapted = prior.agree(condition, poses)
        agreed = replace(condition, parts=tuple(prior.network.agree(FeatureVolume(*condition.parts), CAMERAS)))
    assert not any(part.requires_grad for part in adapted.parts)
    assert (errors(adapted) < 0.8 * errors(agreed)).all()
    assert not torch.equal(adapted.parts[1], agreed.parts[1])
    assert torch.equal(adapted.parts[2][:, :3], agreed.parts[2][:, :3])
    assert all(torch.equal(value, weights[name]) for name, value in prior.network.state_dict().items())
    assert not any(
        parameter.requires_grad or parameter.grad is not None for parameter in prior.network.parameters()
    )
    torch.testing.assert_close(prior.agree(condition, poses).parts, adapted.parts, rtol=0, atol=0)


def test_one_view_is_adapted_to_itself_without_its_opacity():
    prior, condition, poses = two_views()
    one = condition[torch.tensor([0])]
    adapted = prior.agree(one, poses[:1])
    torch.testing.assert_close(adapted.parts[1], one.parts[1], rtol=1e-3, atol=1e-4)
    errors = prediction_errors(prior, condition)
    both = [torch.cat([volume.parts[0], condition.parts[0][1:]]) for volume in (adapted, one)]
    after, before = (errors(replace(condition, parts=(part, *condition.parts[1:]))) for part in both)
    assert after[0, 0] < 0.8 * before[0, 0]


@pytest.mark.parametrize("radius", [False, True])
def test_cameras_are_optimised_with_the_shape(radius, monkeypatch):
    monkeypatch.setattr(adaptation, "BUNDLE_STEPS", 10)
    prior, condition, _ = two_views()
    weights = {name: value.clone() for name, value in prior.network.state_dict().items()}
    moved, again = (bundle(prior.network, FeatureVolume(*condition.parts), CAMERAS, radius) for _ in range(2))
    assert torch.equal(moved, again)
    assert not moved.requires_grad
    assert moved[0, 1] == 0
    assert (moved - CAMERAS)[:, :2].abs().max() > 0.02
    assert torch.equal(moved[:, 2], CAMERAS[:, 2]) is not radius
    assert all(torch.equal(value, weights[name]) for name, value in prior.network.state_dict().items())
    # In the search distances are relative to that of view 1.
    away = torch.tensor([0.0, 0.0, RADIUS])
    torch.testing.assert_close(prior.bundle(condition, CAMERAS - away, radius), moved - away)


def test_filled_points_are_those_of_the_common_opacity():
    prior, condition, poses = two_views()
    agreed = prior.network.agree(FeatureVolume(*condition.parts), CAMERAS)
    points = cells(CAMERAS[:1], 16, 16)[0]
    filled = prior.filled(condition, poses, points)
    torch.testing.assert_close(filled, agreed.opacity[0, 0])
    nowhere = prior.filled(condition, poses, torch.full((2, 3), 9.0))
    assert torch.equal(nowhere, torch.zeros(2))


def exchanging(guidance=1.0):
    """A prior whose exchange makes corrections."""
    prior = tiny(guidance)
    with torch.no_grad():
        prior.network.exchange.correction.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    return prior


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_views_together_correct_each_other(guidance):
    """Predictions of one target view depend on each other alone; a single one is unchanged."""
    prior = exchanging(guidance)
    x, z_t, pose = inputs(prior, 4)
    condition = prior.condition(x)
    alone, together = prior.posed(condition, pose), prior.posed(condition, pose, 2)
    plain = tiny(guidance)
    torch.testing.assert_close(alone.mean, plain.posed(plain.condition(x), pose).mean)
    assert (together.mean - alone.mean).abs().amax((1, 2, 3)).min() > 1e-3
    assert not torch.equal(together.variance, alone.variance)
    swapped = torch.tensor([1, 0, 3, 2])
    other = prior.posed(condition[swapped], pose[swapped], 2)
    torch.testing.assert_close(other.mean, together.mean[swapped], rtol=1e-4, atol=1e-5)
    pair = prior.posed(condition[:2], pose[:2], 2)
    torch.testing.assert_close(pair.mean, together.mean[:2], rtol=1e-4, atol=1e-5)
    rows = torch.tensor([3, 1])
    noise = prior.predict_noise(z_t, 500, together)
    torch.testing.assert_close(
        prior.predict_noise(z_t[rows], 500, together[rows]), noise[rows], rtol=1e-3, atol=1e-4
    )


def test_one_view_agrees_with_itself():
    prior = tiny()
    volume = FeatureVolume(*prior.condition(inputs(prior, 1)[0]).parts)
    agreed = prior.network.agree(volume, CAMERAS[:1])
    for part, expected in zip(agreed, volume, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-3, atol=1e-4)


def test_views_start_from_the_predicted_mean():
    """With a U-Net that adds nothing, the mean is the result."""
    prior = tiny()
    x, _, _ = inputs(prior, 1)
    condition = prior.condition(x)
    targets = torch.tensor([[0.0, 0.4, 0.0], [0.1, 2.0, 0.0]])
    posterior = PosePosterior.certain(condition.cameras(torch.zeros(1, 3), torch.tensor([0])))
    z, _ = sample(
        prior, condition, posterior, targets, 8, ReconstructionConfig(), torch.Generator().manual_seed(0)
    )
    mean = prior.posed(prior.agree(condition, torch.zeros(1, 3))[torch.tensor([0, 0])], targets).mean
    torch.testing.assert_close(z, mean, rtol=1e-3, atol=1e-3)
