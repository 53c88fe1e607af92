"""Surfaces fitted to true views of small objects, and to views some of which are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")

import trimesh

from latentdem.errors import UserError
from latentdem.three_d.evaluation.measures import compare_surface
from latentdem.three_d.geometry.cameras import EXTENT, FIELD_OF_VIEW, camera_axes, grid_points
from latentdem.three_d.mesh import surface as surfaces
from latentdem.three_d.mesh import volume as volumes
from latentdem.three_d.mesh.hull import PosedViews, SurfaceField, project, visual_hull
from latentdem.three_d.mesh.rays import Interpolation, Sample, cast_rays
from latentdem.three_d.mesh.surface import extract_mesh, fit_surface, mask_on_white, write_mesh
from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import Scene, random_scene

RESOLUTION = 24


def around(count: int) -> torch.Tensor:
    """Cameras around an object, alternately from above and from below."""
    azimuth = torch.arange(count) * 2 * math.pi / count
    polar = torch.tensor([60.0, 95.0]).deg2rad()[torch.arange(count) % 2]
    return torch.stack([polar, azimuth, torch.full((count,), 1.6)], 1)


def pictures(scene: Scene, cameras: torch.Tensor, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Views (V, 3, S, S) in [-1, 1] and their masks."""
    rgba = render(scene, cameras, size)
    views = torch.from_numpy(on_white(rgba)).movedim(-1, 1) / 127.5 - 1
    return views, torch.from_numpy(rgba[..., 3]) / 255


def ball_volume(
    radius: float, at: tuple[float, float, float] = (0, 0, 0), resolution: int = 32
) -> SurfaceField:
    """A red ball."""
    voxel = 2 * EXTENT / (resolution - 1)
    distance = ((grid_points(resolution) - torch.tensor(at)).norm(dim=-1) - radius) / voxel
    return SurfaceField(distance, torch.tensor([1.0, 0, 0]).expand(*distance.shape, 3))


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(volumes, "STEPS", 40)


def test_true_views_give_the_object(few_steps):
    scene, cameras = random_scene(5), around(8)
    views, masks = pictures(scene, cameras)
    steps = []
    mesh = fit_surface(views, cameras, masks, resolution=RESOLUTION, progress=lambda *step: steps.append(step))
    assert mesh.is_watertight
    assert mesh.volume > 0
    chamfer, iou = compare_surface(mesh, scene)
    assert iou > 0.75
    assert chamfer < 0.06
    assert steps[-1] == ("surface", 40, 40)
    again = fit_surface(views, cameras, masks, resolution=RESOLUTION)
    np.testing.assert_array_equal(mesh.vertices, again.vertices)


def test_a_wrong_view_is_outvoted_or_removed_by_its_weight(few_steps):
    scene, cameras = random_scene(5), around(8)
    views, masks = pictures(scene, cameras)
    views[2], masks[2] = 1, 0  # nothing there, which carves away a strict hull
    _, outvoted = compare_surface(fit_surface(views, cameras, masks, resolution=RESOLUTION), scene)
    weights = torch.ones(8).index_fill(0, torch.tensor([2]), 0)
    _, removed = compare_surface(fit_surface(views, cameras, masks, weights, resolution=RESOLUTION), scene)
    assert outvoted > 0.6
    assert removed > 0.7


def test_what_a_prior_predicts_to_be_filled_is_used(few_steps):
    """Two views do not determine the depth of an object, but their masks prevail over a wrong prediction."""
    scene, cameras = random_scene(5), around(2)
    views, masks = pictures(scene, cameras)
    points = grid_points(RESOLUTION)
    filled = torch.from_numpy(scene.inside(points.reshape(-1, 3).numpy())).float().view(points.shape[:-1])
    fitted = [
        compare_surface(fit_surface(views, cameras, masks, filled=prediction, resolution=RESOLUTION), scene)[1]
        for prediction in (None, filled, torch.zeros_like(filled))
    ]
    assert fitted[1] > fitted[0] + 0.05
    assert fitted[2] > 0.2
    with pytest.raises(UserError, match=r"\(N, N, N\)"):
        fit_surface(views, cameras, masks, filled=filled[0])


def test_views_of_different_regions_have_a_hull():
    """Two balls side by side, each seen by one half of the cameras: no point has enough votes."""
    cameras = around(4)
    masks = torch.zeros(4, 16, 16)
    masks[:2, 2:5, 7:9] = masks[2:, 11:14, 7:9] = 1
    blank = PosedViews(torch.ones(4, 3, 16, 16), masks, cameras, torch.ones(4))
    distance = visual_hull(blank, RESOLUTION).distance
    assert 0 < (distance < 0).float().mean() < 0.1


def test_colours_are_at_their_places(few_steps):
    """The vertices in front of a camera have the colours of its picture."""
    scene, cameras = random_scene(5), around(8)
    views, masks = pictures(scene, cameras)
    mesh = fit_surface(views, cameras, masks, resolution=RESOLUTION)
    forward = camera_axes(cameras[0])[3]
    facing = mesh.vertex_normals @ forward.numpy() < -0.8
    colours = torch.from_numpy(mesh.visual.vertex_colors[facing, :3]).float() / 127.5 - 1
    points = torch.from_numpy(np.array(mesh.vertices[facing])).float()
    positions = project(points, cameras[0])
    expected = torch.nn.functional.grid_sample(views[:1], positions, align_corners=False)[0, :, 0].T
    error = (colours - expected).abs().median()
    assert error < 0.1
    assert (colours - expected.roll(len(expected) // 2, 0)).abs().median() > error


def test_silhouettes_of_the_field_are_those_of_the_surface():
    """A ray that touches the surface is half covered: the opacity has no bias outwards."""
    radius, cameras = 0.4, around(2)
    volume = ball_volume(radius, resolution=48)
    blank = PosedViews(torch.ones(2, 3, 48, 48), torch.zeros(2, 48, 48), cameras, torch.ones(2))
    rays = cast_rays(volume.distance, blank)
    field = torch.cat([volume.distance.reshape(-1, 1), volume.colour.reshape(-1, 3)], 1)
    mask, colour = volumes._render(field, rays, width=0.4)
    tangent = radius / math.sqrt(1.6**2 - radius**2) / math.tan(FIELD_OF_VIEW / 2)
    assert mask.sum() / (2 * 48**2) == pytest.approx(math.pi * tangent**2 / 4, rel=0.03)
    torch.testing.assert_close(colour, torch.stack([torch.ones_like(mask), 1 - mask, 1 - mask], 1))


def test_gradient_of_the_sampling():
    corners = torch.tensor([[0, 2], [1, 2], [3, 0]])
    weights = Interpolation(corners, torch.rand(3, 2, generator=torch.Generator().manual_seed(0)), 5)
    dense = torch.zeros(3, 5).scatter_add(1, corners, weights.shares)
    field = torch.arange(10.0).reshape(5, 2).requires_grad_()
    values = Sample.apply(field, weights)
    torch.testing.assert_close(values, dense @ field)
    (gradient,) = torch.autograd.grad(values.square().sum(), field)
    torch.testing.assert_close(gradient, 2 * dense.T @ values)


def test_masks_from_the_white_background():
    """Pixels at edges are covered in part; a white spot inside the object belongs to it."""
    views, masks = pictures(random_scene(5), around(3), size=64)
    estimate = mask_on_white(views)
    assert (estimate - masks).abs().mean() < 0.01
    spot = views.clone()
    spot[0, :, 31:34, 31:34] = 1
    assert masks[0, 31:34, 31:34].min() == 1
    assert mask_on_white(spot)[0, 31:34, 31:34].min() == 1


def test_the_largest_piece_is_kept_with_its_colours():
    small, large = ball_volume(0.1, (0.4, 0, 0)), ball_volume(0.3, (-0.2, 0, 0))
    colour = small.colour.clone()
    colour[:16] = torch.tensor([0.0, 0, 1])
    mesh = extract_mesh(SurfaceField(torch.minimum(small.distance, large.distance), colour))
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.02)
    assert mesh.bounds[1, 0] < 0.15
    assert (mesh.visual.vertex_colors[mesh.vertices[:, 0] < -0.1] == (0, 0, 255, 255)).all()


@pytest.mark.filterwarnings("error")
def test_a_fragment_without_volume_is_ignored_without_a_warning():
    ball = ball_volume(0.3)
    ball.distance[2, 2, 2] = -1e-12
    assert extract_mesh(ball).volume == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.02)


def test_a_surface_beyond_the_grid_is_closed():
    assert extract_mesh(ball_volume(0.4, (0.4, 0, 0))).is_watertight


def test_fewer_faces():
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")
    mesh = extract_mesh(ball_volume(0.4), max_faces=500)
    assert 400 < len(mesh.faces) <= 500
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.03)
    assert (mesh.visual.vertex_colors == (255, 0, 0, 255)).all()


@pytest.mark.parametrize("ending", surfaces.FORMATS)
def test_files_keep_shape_and_colours(tmp_path, ending):
    mesh = extract_mesh(ball_volume(0.3, (0, 0, 0.2)))
    write_mesh(mesh, tmp_path / f"ball{ending}")
    read = trimesh.load(tmp_path / f"ball{ending}", force="mesh", process=False)
    assert read.volume == pytest.approx(mesh.volume, rel=1e-3)
    assert (read.visual.vertex_colors[:, :3] == (255, 0, 0)).all()
    up = 1 if ending == ".glb" else 2
    assert read.centroid[up] == pytest.approx(0.2, abs=0.01)


def test_mistakes_are_reported(tmp_path, monkeypatch):
    views, cameras = torch.ones(2, 3, 8, 8), around(2)
    for arguments, sentence in (
        ((views, cameras), "No object"),
        ((views[..., :6], cameras), "squares"),
        ((views, cameras[:1]), "need cameras"),
        ((views, cameras, torch.ones(2, 4, 4)), "masks must have"),
        ((views, cameras, torch.ones(2, 8, 8), torch.tensor([1.0, -1])), "weights must be"),
    ):
        with pytest.raises(UserError, match=sentence):
            fit_surface(*arguments)
    with pytest.raises(UserError, match="one of volume, gsplat"):
        fit_surface(views, cameras, surface="nerf")
    mesh = extract_mesh(ball_volume(0.3))
    with pytest.raises(UserError, match=r"rename ball\.stl"):
        write_mesh(mesh, tmp_path / "ball.stl")
    with pytest.raises(UserError, match="Cannot write"):
        write_mesh(mesh, tmp_path / "missing" / "ball.ply")
    with pytest.raises(UserError, match="no surface in common"):
        extract_mesh(SurfaceField(torch.ones(4, 4, 4), torch.ones(4, 4, 4, 3)))
    monkeypatch.setattr(surfaces, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        extract_mesh(ball_volume(0.3), max_faces=10)
