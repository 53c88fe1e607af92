"""Meshes of reconstructions that consist of renderings of a known object."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")
pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")

from latentdem.errors import UserError
from latentdem.three_d.evaluation.measures import compare_surface
from latentdem.three_d.geometry.poses import ring
from latentdem.three_d.mesh import solid as solids
from latentdem.three_d.mesh import surface as surfaces
from latentdem.three_d.mesh import volume as volumes
from latentdem.three_d.mesh.solid import Solid, check_mesh
from latentdem.three_d.output.result import Reconstruction
from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import random_scene

SCENE = random_scene(5)
FIRST = torch.tensor([math.radians(75), 0.8, 1.6])


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(volumes, "STEPS", 3)


def pictures(poses):
    rgba = render(SCENE, FIRST + poses, 32)
    return torch.from_numpy(on_white(rgba)).movedim(-1, 1) / 127.5 - 1, torch.from_numpy(rgba[..., 3]) / 255


@pytest.fixture
def result():
    """Reconstruction by a perfect prior from three known views."""
    poses, targets = torch.tensor([[0.0] * 3, [0.2, 1.5, 0.0], [-0.2, 3.0, 0.0]]), ring(8, (0.0,))
    (inputs, masks), (views, _) = pictures(poses), pictures(targets)
    cut_masks = (None, masks[1], masks[2])
    return Reconstruction(inputs, poses, torch.ones(3), targets, views, (True,) * 3, cut_masks, {}, {})


def test_the_mesh_is_the_object(result):
    steps = []
    solid = result.solid(progress=lambda *step: steps.append(step))
    assert steps[-1] == ("surface", 6, 6)
    assert math.degrees(solid.camera[0]) == pytest.approx(75, abs=5.1)
    assert solid.camera[1] == 0
    assert len(solid.mesh.faces) <= solids.MAX_FACES
    assert solid.mesh.visual.vertex_colors.shape == (len(solid.mesh.vertices), 4)
    # The mesh has view 1 at azimuth 0.
    assert compare_surface(solid.mesh, SCENE.turned(-0.8))[1] > 0.75
    assert compare_surface(solid.mesh, SCENE)[1] < 0.7


def test_known_views_have_their_masks_and_are_weighted_by_their_confidence(result, monkeypatch):
    """A view that is not cut out is left out."""
    given = {}

    def fit(views, cameras, masks, weights, filled, **options):
        given.update(views=views, cameras=cameras, masks=masks, weights=weights, filled=filled, **options)

    monkeypatch.setattr(surfaces, "fit_surface", fit)
    mask = torch.full((32, 32), 0.25)
    result = replace(
        result,
        cut=(True, False, True),
        masks=(None, None, mask),
        confidence=torch.tensor([1.0, 1.0, 0.5]),
        filled=torch.rand(4, 4, 4),
    )
    first = result.solid().camera
    torch.testing.assert_close(given["views"], torch.cat([result.inputs[[0, 2]], result.views]))
    torch.testing.assert_close(given["cameras"], first + torch.cat([result.poses[[0, 2]], result.targets]))
    assert given["weights"].tolist() == [2.0, 1.0] + [1.0] * 8
    torch.testing.assert_close(given["masks"][0], pictures(torch.zeros(1, 3))[1][0], atol=0.3, rtol=0)
    assert torch.equal(given["masks"][1], mask)
    assert given["filled"] is result.filled
    assert given["surface"] == "volume"


def test_mesh_is_fitted_once_at_the_first_access(result, monkeypatch):
    calls = []
    monkeypatch.setattr(Reconstruction, "solid", lambda result: calls.append(1) or Solid(object(), FIRST, 1.0))
    assert not calls
    assert result.mesh is result.mesh
    assert len(calls) == 1


def test_mistakes_are_reported_in_advance(result, monkeypatch):
    for arguments, sentence in (
        (("volume", "cup.stl"), r"rename cup\.stl"),
        (("nerf",), "one of volume, gsplat"),
        (("gsplat",), "needs"),
    ):
        with pytest.raises(UserError, match=sentence):
            check_mesh(*arguments)
    check_mesh("volume", "cup.GLB")
    with pytest.raises(UserError, match="No object was found in the views"):
        replace(result, views=torch.ones_like(result.views), cut=(False,) * 3).solid()
    monkeypatch.setattr(solids, "find_spec", lambda name: None if name == "trimesh" else 1)
    with pytest.raises(UserError, match="needs trimesh; install with: pip install trimesh"):
        check_mesh("volume")


def test_a_polar_angle_that_the_prior_estimates_is_used(result):
    assert float(replace(result, polar=1.2).solid().camera[0]) == pytest.approx(1.2)


@pytest.mark.parametrize(("device", "entered"), [("cuda:1", torch.device("cuda:1")), ("cpu", -1)])
def test_the_surface_is_fitted_on_the_gpu_of_the_reconstruction(result, monkeypatch, device, entered):
    devices = []

    @contextmanager
    def on(place):
        devices.append(place)
        yield

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(surfaces, "fit_surface", lambda *args, **options: devices.append("fit"))
    replace(result, settings={"device": device}).solid()
    assert devices == [entered, "fit"]
