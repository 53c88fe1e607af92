"""Optimised poses, and rings of target views."""

from __future__ import annotations

import math

import pytest
import torch

from latentdem.errors import UserError
from latentdem.three_d.geometry.cameras import POLAR_RANGE
from latentdem.three_d.geometry.poses import (
    POLAR_LIMIT,
    PRINCIPAL_LIMIT,
    MovingPoses,
    angle_between,
    bounded,
    ring,
)


def test_azimuths_wrap_and_polar_angles_are_clamped():
    poses = torch.tensor([[0.2, math.pi + 0.1, 0.0], [9.0, -math.pi - 0.1, -9.0]])
    expected = torch.tensor([[0.2, 0.1 - math.pi, 0.0], [POLAR_LIMIT, math.pi - 0.1, -0.3]])
    torch.testing.assert_close(bounded(poses), expected)


def test_angle_is_that_of_the_short_way():
    first, second = torch.tensor([0.0, 3.1, 0.0]), torch.tensor([0.03, -3.1, 5.0])
    expected = math.hypot(0.03, 2 * math.pi - 6.2)
    assert float(angle_between(first, second)) == pytest.approx(expected, abs=1e-5)


def test_only_unknown_poses_move():
    start = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 3.14, 0.05]]])
    moving = MovingPoses(start)
    moving.move(torch.tensor([[[5.0, 5.0, 5.0], [1.0, -1.0, 1.0]]]), 0.01)
    # The first step of Adam is the rate, against the sign of the gradient; the azimuth passes half a turn.
    expected = torch.tensor([[[0.0, 0.0, 0.0], [0.09, 3.15 - 2 * math.pi, 0.05]]])
    torch.testing.assert_close(moving.poses, expected)
    assert start[0, 1, 0] == torch.tensor(0.1)
    far = MovingPoses(start, radius=True)
    far.move(torch.ones(1, 2, 3), 0.01)
    assert float(far.poses[0, 1, 2]) == pytest.approx(0.04)


def test_the_first_polar_angle_moves_all_cameras():
    start = torch.tensor([[[1.2, 0.0, 0.0], [1.4, 0.5, 0.0]], [[POLAR_RANGE[1], 0.0, 0.0], [1.0, 0.5, 0.0]]])
    moving = MovingPoses(start, first=True)
    gradient = torch.zeros(2, 2, 3)
    gradient[0, :, 0] = torch.tensor([1.0, -3.0])  # upwards in sum
    gradient[1, 0] = torch.tensor([-1.0, 5.0, 5.0])  # beyond the range
    moving.move(gradient, 0.01)
    expected = torch.tensor([[[1.21, 0.0, 0.0], [1.42, 0.5, 0.0]], start[1].tolist()])
    torch.testing.assert_close(moving.poses, expected)


def test_principal_points_move_within_their_range():
    """The principal point of the first view moves all others, which also move relative to it."""
    start = torch.tensor([[[1.2, 0.0, 0.0, 0.05, 0.0], [1.4, 0.5, 0.0, 0.05 + PRINCIPAL_LIMIT, -0.01]]])
    gradient = torch.tensor([[[0.0, 7.0, 7.0, 1.0, -1.0], [0.0, 0.0, 0.0, -3.0, -3.0]]])
    moving = MovingPoses(start, first=True)
    moving.move(gradient, 0.01)
    first = [1.2, 0.0, 0.0, 0.06, 0.01]
    expected = torch.tensor([[first, [1.4, 0.5, 0.0, 0.06 + PRINCIPAL_LIMIT, 0.01]]])
    torch.testing.assert_close(moving.poses, expected)
    alone = MovingPoses(start)
    alone.move(gradient, 0.01)
    torch.testing.assert_close(alone.poses[:, 0], start[:, 0])
    torch.testing.assert_close(alone.poses[0, 1, 3:], torch.tensor([0.05 + PRINCIPAL_LIMIT, 0.0]))


def test_ring():
    targets = ring(4, [0.0, 30.0])
    quarter = math.pi / 2
    azimuths = torch.tensor([0.0, quarter, -2 * quarter, -quarter])
    torch.testing.assert_close(targets[:, 1], azimuths.repeat(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets[:, 0].rad2deg(), torch.tensor([0.0] * 4 + [-30.0] * 4))
    assert not targets[:, 2].any()
    assert ring(1, [0.0]).shape == (1, 3)


@pytest.mark.parametrize(("azimuths", "elevations"), [(0, [0.0]), (3, []), (3, [90.0]), (3, [float("nan")])])
def test_impossible_rings_are_refused(azimuths, elevations):
    with pytest.raises(UserError):
        ring(azimuths, elevations)
