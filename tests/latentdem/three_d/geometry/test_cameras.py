"""Conventions of cameras and relative poses."""

from __future__ import annotations

import math

import torch

from latentdem.three_d.geometry.cameras import camera_axes, pixel_grid, pose_embedding, relative_pose, wrap


def test_camera_on_the_x_axis():
    """At polar angle 90 degrees and azimuth 0, a camera looks along -x, with y to its right and z up."""
    axes = camera_axes(torch.tensor([math.pi / 2, 0.0, 2.0], dtype=torch.float64))
    expected = [[2, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0]]
    for axis, value in zip(axes, expected, strict=True):
        torch.testing.assert_close(axis, torch.tensor(value, dtype=torch.float64))


def test_axes_are_orthonormal_and_right_handed():
    position, right, up, forward = camera_axes(torch.rand(20, 3, dtype=torch.float64) * 3)
    frame = torch.stack([right, up, -forward], dim=-1)
    torch.testing.assert_close(frame.mT @ frame, torch.eye(3, dtype=torch.float64).expand(20, 3, 3))
    torch.testing.assert_close(torch.linalg.det(frame), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(position.norm(dim=-1, keepdim=True) * -forward, position)


def test_relative_pose_wraps_the_azimuth():
    reference = torch.tensor([1.0, 3.0, 1.5])
    pose = relative_pose(torch.tensor([0.7, -3.0, 1.6]), reference)
    torch.testing.assert_close(pose, torch.tensor([-0.3, 2 * math.pi - 6, 0.1]))
    assert wrap(torch.tensor(math.pi)) == -math.pi


def test_embedding_is_periodic_in_the_azimuth():
    pose = torch.tensor([0.2, -1.0, 0.1], dtype=torch.float64)
    expected = torch.tensor([0.2, math.sin(-1), math.cos(-1), 0.1], dtype=torch.float64)
    torch.testing.assert_close(pose_embedding(pose), expected)
    turned = pose + torch.tensor([0, 2 * math.pi, 0])
    torch.testing.assert_close(pose_embedding(turned), expected)


def test_rows_of_the_picture_go_down():
    across, upwards = pixel_grid(4)
    assert (across[:, -1] > 0).all()
    assert (upwards[0] > 0).all()
    torch.testing.assert_close(across, -upwards.mT)
