"""Errors of cameras and surfaces against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")

import trimesh

from latentdem.three_d.evaluation.measures import chamfer_distance, compare_surface, pose_error, volume_iou
from latentdem.three_d.geometry.cameras import OBJECT_RADIUS
from latentdem.three_d.synthetic import shapes
from latentdem.three_d.synthetic.scenes import Part, Scene
from latentdem.three_d.synthetic.textures import Texture


def ball_scene(radius: float) -> Scene:
    grey = Texture(np.full((2, 3), 0.5), lambda points: np.zeros(len(points)))
    return Scene((Part(shapes.ball(), grey, radius * np.eye(3), np.zeros(3)),))


def test_pose_error_is_the_angle_between_viewing_directions():
    truth = torch.tensor([math.pi / 2, 3.1, 1.6], dtype=torch.float64)
    moved = truth + torch.tensor([[0, 0.2, 0.3], [0.1, 0, 0], [0, math.pi, 0], [1e-7, 0, 0]])
    expected = torch.tensor([0.2, 0.1, math.pi, 1e-7], dtype=torch.float64).rad2deg()
    torch.testing.assert_close(pose_error(moved, truth), expected, rtol=1e-6, atol=1e-9)
    at_the_pole = torch.tensor([[0.0, 0.0, 1.6], [0.0, 2.0, 1.6]])
    assert pose_error(*at_the_pole) < 1e-4


def test_chamfer_distance_of_parallel_squares():
    side = np.linspace(0, 1, 20)
    square = np.stack([*np.meshgrid(side, side), np.zeros((20, 20))], -1).reshape(-1, 3)
    assert chamfer_distance(square, square + np.array([0, 0, 0.3])) == pytest.approx(0.3)
    # From a part of a surface to the whole the distance is zero, but not back.
    assert chamfer_distance(square[:200], square) == pytest.approx(chamfer_distance(square, square[:200]))
    assert chamfer_distance(square[:200], square) > 0.05


def test_volume_iou():
    a, b = np.array([True, True, False, False]), np.array([False, True, True, False])
    assert volume_iou(a, b) == pytest.approx(1 / 3)
    assert volume_iou(a, a) == 1
    assert volume_iou(a & ~a, a & ~a) == 1


def test_a_smaller_ball_against_a_ball():
    chamfer, iou = compare_surface(trimesh.creation.icosphere(4, radius=0.4), ball_scene(0.5))
    assert chamfer == pytest.approx(0.1 / OBJECT_RADIUS, rel=0.03)
    assert iou == pytest.approx(0.8**3, rel=0.03)
