"""Poses from which an object looks the same, on objects whose symmetries are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem.three_d.evaluation.symmetry import STEP, true_cameras
from latentdem.three_d.geometry.cameras import RADIUS
from latentdem.three_d.synthetic import shapes
from latentdem.three_d.synthetic.scenes import Part, Scene
from latentdem.three_d.synthetic.textures import Texture

FIRST = torch.tensor([1.2, 0.0, RADIUS])
OTHER = torch.tensor([1.4, 0.8, RADIUS])
GREY = Texture(np.full((2, 3), 0.5), lambda points: np.zeros(len(points)))
# Red on the side of positive x, blue on the other.
HALVES = Texture(np.array([[1.0, 0, 0], [0, 0, 1.0]]), lambda points: (points[:, 0] < 0).astype(float))
RED = Texture(np.array([[1.0, 0, 0], [1.0, 0, 0]]), lambda points: np.zeros(len(points)))
BODY = 0.25 * np.eye(3)
LONG = np.diag([0.5, 0.15, 0.25])


def turns(*parts: Part) -> list[int]:
    """Azimuths of the true cameras relative to the first of them, in degrees."""
    cameras = true_cameras(Scene(parts), FIRST, OTHER)
    torch.testing.assert_close(cameras[0], OTHER)
    assert (cameras[:, [0, 2]] == OTHER[[0, 2]]).all()
    return torch.rad2deg(cameras[:, 1] - OTHER[1]).round().int().tolist()


def test_a_ball_of_one_colour_looks_the_same_from_everywhere():
    assert turns(Part(shapes.ball(), GREY, BODY, np.zeros(3))) == list(range(0, 360, STEP))


def test_half_a_turn_of_a_long_object_is_as_good_and_nothing_in_between():
    found = turns(Part(shapes.ball(), GREY, LONG, np.zeros(3)))
    assert {0, 180} <= set(found)
    assert all(min(turn % 180, -turn % 180) <= 2 * STEP for turn in found)


def test_two_colours_tell_the_ends_apart():
    found = turns(Part(shapes.ball(), HALVES, LONG, np.zeros(3)))
    assert 0 in found
    assert all(min(turn, 360 - turn) <= 2 * STEP for turn in found)


def test_a_handle_that_one_view_does_not_show_may_be_anywhere_behind():
    # The handle is behind the body in view 1, so that the body may have been turned by as much as hides it.
    place = np.array([-0.42, 0, 0])
    mug = Part(shapes.ball(), GREY, 0.4 * np.eye(3), np.zeros(3))
    handle = Part(shapes.ball(), RED, 0.12 * np.eye(3), place)
    found = turns(mug, handle)
    assert 0 in found
    assert 180 not in found
    assert max(min(turn, 360 - turn) for turn in found) > 2 * STEP
