"""Matched features: where they are, what they say about cameras, and how they enter the search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

pytest.importorskip("cv2", reason="the extra three-d is not installed")

from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, RADIUS, camera_axes
from latentdem.three_d.pose_search import features
from latentdem.three_d.pose_search.features import GAIN, FeatureMatches
from latentdem.three_d.pose_search.noise_error import MATCHED, SCORED, PairError

from ..tiny_priors import crops, finite, inputs, scorer, tiny

PAIR = torch.tensor([0]), torch.tensor([1])
CAMERAS = torch.tensor([[[1.2, 0.3, 0.0], [1.4, 1.1, 0.0]]], dtype=torch.float64)
CROPPED = torch.tensor([[[1.2, 0.3, 0.02, 0.03, -0.01], [1.4, 1.1, -0.05, -0.02, 0.04]]], dtype=torch.float64)


def points_on_the_object(count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.6 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.3


def tangents(points: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
    """Where a camera (C,) sees points (N, 3) of the world, by the definition of the axes."""
    distance = RADIUS + camera[2]
    position, right, up, forward = camera_axes(torch.stack([camera[0], camera[1], distance]))
    depth = (points - position) @ forward
    seen = torch.stack([(points - position) @ right, (points - position) @ up], 1) / depth[:, None]
    return seen + camera[3:] / distance if len(camera) > 3 else seen


def matches(cameras: torch.Tensor, wrong: int = 0) -> FeatureMatches:
    points = points_on_the_object()
    both = torch.cat([tangents(points, cameras[0, 0]), tangents(points, cameras[0, 1])], 1)
    generator = torch.Generator().manual_seed(1)
    noise = 0.3 * torch.rand(wrong, 4, generator=generator, dtype=torch.float64) - 0.15
    return FeatureMatches({(0, 1): torch.cat([both, noise])})


@pytest.mark.parametrize("cameras", [CAMERAS, CROPPED])
def test_all_matches_support_the_true_cameras_and_few_others(cameras):
    found = matches(cameras)
    torch.testing.assert_close(
        found.evidence(*PAIR, cameras), torch.tensor([40 * math.log1p(GAIN)]).double(), rtol=0.02, atol=0
    )
    turned = cameras.clone()
    turned[:, 1, 1] -= 1.6  # to the other side
    assert found.evidence(*PAIR, turned) < 0.3 * found.evidence(*PAIR, cameras)


def test_the_order_of_views_makes_no_difference():
    found = matches(CROPPED)
    swapped = found.evidence(*reversed(PAIR), CROPPED.flip(1))
    torch.testing.assert_close(swapped, found.evidence(*PAIR, CROPPED))
    several = found.evidence(torch.tensor([0, 1, 0]), torch.tensor([1, 0, 2]), CROPPED.repeat(3, 1, 1))
    assert several[2] == 0
    assert several[0] != several[1]


def test_points_beyond_the_object_do_not_count():
    far = points_on_the_object() + torch.tensor([0.0, 0.0, 1.1])
    both = torch.cat([tangents(far, CAMERAS[0, 0]), tangents(far, CAMERAS[0, 1])], 1)
    assert FeatureMatches({(0, 1): both}).evidence(*PAIR, CAMERAS) < 1e-3


@pytest.mark.parametrize("cameras", [CAMERAS, CROPPED])
def test_the_hypothesis_is_the_true_pose_among_many_wrong_matches(cameras):
    found = matches(cameras, wrong=60)
    estimate = cameras[0, :, 0] + torch.tensor([0.15, -0.1])
    cropped = cameras.shape[-1] > 3
    hypothesis = found.hypothesis(1, estimate, cropped)
    assert hypothesis.shape == cameras.shape[1:]
    assert not hypothesis[0, 1:3].any()
    turn = math.remainder(float(hypothesis[1, 1] - (cameras[0, 1, 1] - cameras[0, 0, 1])), 2 * math.pi)
    assert abs(math.degrees(turn)) < (6 if cropped else 2)
    rows = hypothesis[None].double()
    assert found.evidence(*PAIR, rows) > 0.6 * found.evidence(*PAIR, cameras)


def test_only_matches_that_agree_on_a_pose_count():
    generator = torch.Generator().manual_seed(2)
    noise = 0.3 * torch.rand(60, 4, generator=generator, dtype=torch.float64) - 0.15
    found = FeatureMatches({**matches(CAMERAS, wrong=60).points, (0, 2): noise, (1, 2): noise[:5]})
    polar = torch.tensor([1.25, 1.3, 1.3])
    kept = found.agreeing(lambda picture, points: points, polar)
    assert list(kept.points) == [(0, 1)]
    assert kept.points[0, 1] is found.points[0, 1]
    assert kept.hypothesis(2, polar[:2], False) is None


def textured(size: int) -> torch.Tensor:
    """Layers (4, size, size) of a picture with blobs on an opaque ground."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 24, 24, generator=generator) * 2 - 1
    colours = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0].clamp(-1, 1)
    return torch.cat([colours, torch.zeros(1, size, size)])


@pytest.mark.parametrize("size", [96, 400, 1400])
def test_features_are_matched_where_they_are(size):
    """Small pictures are enlarged, and large ones reduced; positions are those of the picture given."""
    layers = textured(size)
    moved = size // 16
    found = FeatureMatches.of([layers, layers.roll((moved, 2 * moved), (1, 2))]).points[0, 1]
    difference = found[:, 2:] - found[:, :2]
    middle = difference[(found[:, 2:] > 3 * moved).all(1)]
    assert 20 < len(middle) <= features.MOST
    expected = torch.tensor([2.0 * moved, moved])
    assert (middle - expected).abs().median() < 0.02 * moved + 0.1


def test_what_is_transparent_has_no_features():
    layers = textured(256)
    layers[3] = 1
    assert not FeatureMatches.of([layers, layers]).points
    plain = torch.ones(4, 256, 256)
    plain[3] = 0
    assert not FeatureMatches.of([plain, plain]).points


def test_no_features_without_opencv(monkeypatch):
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    assert not FeatureMatches.of([textured(96)] * 2).points


def test_points_of_a_picture_are_rays_of_its_crop():
    """Moved crops see the same points along other rays: the origin in the middle, and from another distance."""
    cut = crops(32)
    middle = torch.tensor([[cut._squares[1].x, cut._squares[1].y]])
    torch.testing.assert_close(cut.tangents(1, middle), torch.zeros(1, 2))
    side = cut._squares[1].side
    edge = math.tan(FIELD_OF_VIEW / 2)
    corner = middle + torch.tensor([[side / 2, -side / 2]])
    torch.testing.assert_close(cut.tangents(1, corner), torch.tensor([[edge, edge]]))
    cameras = torch.tensor([[1.2, 0.0, 0.0, 0.0, 0.0], [1.3, 0.5, 0.1, -0.02, 0.1]])
    framed = cut.framed(cameras)
    seen = framed.tangents(1, middle)  # where the old middle is, seen by the new camera
    expected = torch.tensor([[0.02, -0.1]]) / RADIUS
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)


def test_evidence_counts_with_the_scores():
    prior = tiny(scorer=scorer())
    x, _, _ = inputs(prior)
    found = matches(CAMERAS)
    plain = PairError(prior, prior.condition(x), prior.encode(x))
    error = replace(plain, matches=found)
    cameras = CAMERAS.float()
    evidence = MATCHED * found.evidence(*PAIR, cameras)
    torch.testing.assert_close(error.scores(*PAIR, cameras) - plain.scores(*PAIR, cameras), evidence)
    draws = error.draws(2, torch.Generator().manual_seed(0))
    scored = plain(*PAIR, cameras, draws, scored=True) - error(*PAIR, cameras, draws, scored=True)
    torch.testing.assert_close(scored, SCORED * evidence.expand(2, 1), rtol=1e-4, atol=1e-2)
    unscored = plain(*PAIR, cameras, draws) - error(*PAIR, cameras, draws)
    assert not unscored.any()


def test_a_prior_without_heights_ignores_matches():
    prior = finite()
    x, _, _ = inputs(prior, dtype=torch.float64)
    plain = PairError(prior, prior.condition(x), prior.encode(x))
    error = replace(plain, matches=matches(CAMERAS))
    draws = error.draws(1, torch.Generator().manual_seed(0))
    assert torch.equal(*(e(*PAIR, CAMERAS, draws, scored=True) for e in (plain, error)))
