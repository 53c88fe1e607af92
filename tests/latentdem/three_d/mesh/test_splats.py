"""Gaussian splatting without its optimisation: cameras, the volume of Gaussians, and missing packages."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem.errors import UserError
from latentdem.three_d.geometry.cameras import EXTENT, grid_points
from latentdem.three_d.mesh import splats
from latentdem.three_d.mesh.hull import project
from latentdem.three_d.mesh.surface import extract_mesh, fit_surface


def test_matrices_project_points_as_the_camera_sees_them():
    cameras = torch.tensor([[1.1, 0.4, 1.6], [0.7, -2.0, 1.5]])
    points = torch.tensor([[0.2, -0.1, 0.3], [0.0, 0.0, 0.0]])
    for camera, matrix in zip(cameras, splats.world_to_camera(cameras), strict=True):
        projected = splats.intrinsic_matrix(64) @ (points @ matrix[:3, :3].T + matrix[:3, 3]).T
        assert (projected[2] > 0).all()
        expected = 32 * (1 + project(points, camera)[0, 0])
        torch.testing.assert_close((projected[:2] / projected[2]).T, expected)


def test_volume_of_gaussians_in_a_ball():
    resolution = 32
    points = grid_points(resolution).reshape(-1, 3)
    points = points[points.norm(dim=-1) < 0.3]
    gaussians = {
        "means": points,
        "scales": torch.full((len(points), 1), math.log(EXTENT / resolution)),
        "opacities": torch.full((len(points),), 4.0),
        "colours": torch.tensor([8.0, -8, -8]).expand(len(points), 3),
    }
    mesh = extract_mesh(splats.splat_volume(gaussians, resolution))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.25)
    assert (mesh.visual.vertex_colors[:, 0] > 250).all()


def test_missing_package_and_device_are_reported(monkeypatch):
    views, cameras = torch.full((1, 3, 8, 8), -1.0), torch.tensor([[1.0, 0, 1.6]])
    monkeypatch.setattr(splats, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gsplat"):
        fit_surface(views, cameras, surface="gsplat")
    monkeypatch.setattr(splats, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="CUDA device"):
        fit_surface(views, cameras, surface="gsplat")
