"""Geometry of renderings, and volumes and surfaces of objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")

import trimesh

from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, OBJECT_RADIUS
from latentdem.three_d.synthetic import render as rendering
from latentdem.three_d.synthetic import scenes, shapes
from latentdem.three_d.synthetic.render import on_white, render, render_mesh
from latentdem.three_d.synthetic.scenes import Part, Scene, random_scene
from latentdem.three_d.synthetic.textures import Texture

FRONT = torch.tensor([[math.pi / 2, 0.0, 1.6]])


def plain(colour: tuple[float, float, float]) -> Texture:
    return Texture(np.array([colour, colour]), lambda points: np.zeros(len(points)))


def ball(radius: float, at: tuple[float, float, float], colour=(1.0, 0.0, 0.0)) -> Part:
    return Part(shapes.ball(), plain(colour), radius * np.eye(3), np.array(at))


def test_silhouette_of_a_ball():
    """The cone of tangents to a ball of radius r at distance d has the tangent r / sqrt(d^2 - r^2)."""
    radius = 0.5
    alpha = render(Scene((ball(radius, (0, 0, 0)),)), FRONT)[0, ..., 3] / 255
    tangent = radius / math.sqrt(1.6**2 - radius**2) / math.tan(FIELD_OF_VIEW / 2)
    # The ball is a polyhedron inside the sphere, so it is slightly smaller.
    assert alpha.mean() == pytest.approx(math.pi * tangent**2 / 4, rel=0.015)
    np.testing.assert_array_equal(alpha, alpha[:, ::-1])


def test_rays_that_are_left_out_miss_the_object(monkeypatch):
    cameras = torch.tensor([[0.6, 0.3, 1.5], [1.4, 2.0, 1.8]])
    expected = render(random_scene(3), cameras, size=24)
    monkeypatch.setattr(rendering, "OBJECT_RADIUS", 10.0)
    np.testing.assert_array_equal(render(random_scene(3), cameras, size=24), expected)


def test_pixels_are_at_the_projected_positions():
    """From the x axis, y is to the right and z is up."""
    scene = Scene((ball(0.1, (0, 0.3, 0), (1, 0, 0)), ball(0.1, (0, 0, 0.3), (0, 1, 0))))
    picture = render(scene, FRONT)[0]
    tangent = 0.3 / 1.6 / math.tan(FIELD_OF_VIEW / 2)
    away = 32 + 32 * tangent
    row, column = (np.mean(axis) for axis in np.nonzero(picture[..., 0] > 100))
    assert (row, column) == pytest.approx((31.5, away - 0.5), abs=0.5)
    row, column = (np.mean(axis) for axis in np.nonzero(picture[..., 1] > 100))
    assert (row, column) == pytest.approx((63.5 - away, 31.5), abs=0.5)


def test_turning_the_camera_is_turning_the_object_back(monkeypatch):
    monkeypatch.setattr(rendering, "LIGHT", np.array([0.0, 0.0, 1.0]))  # independent of the object
    scene = random_scene(11)
    camera = torch.tensor([[1.1, 0.4, 1.6]])
    there = render(scene, camera + torch.tensor([0, 0.9, 0]), size=32)
    here = render(scene.turned(-0.9), camera, size=32)
    assert np.abs(there.astype(float) - here).mean() < 0.05


def test_nearer_parts_hide_those_behind():
    scene = Scene((ball(0.2, (-0.3, 0, 0), (1, 0, 0)), ball(0.2, (0.3, 0, 0), (0, 1, 0))))
    red, green, _, alpha = render(scene, FRONT)[0, 32, 32]
    assert (red, alpha) == (0, 255)
    assert green > 100


def test_a_side_is_the_brighter_the_more_it_faces_the_light():
    scene = Scene((ball(0.5, (0, 0, 0)),))
    lights = {"right": np.array([0.0, 3, 0]), "above": np.array([0.0, 0, 1]), "usual": rendering.LIGHT}
    red = {name: render(scene, FRONT, 32, light)[0, ..., 0].astype(int) for name, light in lights.items()}
    assert red["right"][16, 22] > red["right"][16, 10] + 20
    assert red["above"][10, 16] > red["above"][22, 16] + 20
    np.testing.assert_array_equal(red["usual"], render(scene, FRONT, 32)[0, ..., 0])


def test_white_ground_shows_through_the_edge():
    pictures = np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [255, 1, 0, 51]]], np.uint8)
    assert on_white(pictures).tolist() == [[[255, 255, 255], [255, 0, 0], [255, 204, 204]]]


@pytest.mark.parametrize("seed", range(20))
def test_objects_are_deterministic_and_fit(seed):
    scene, again = random_scene(seed), random_scene(seed)
    points = np.concatenate([part.vertices() for part in scene.parts])
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(OBJECT_RADIUS)
    np.testing.assert_array_equal(points, np.concatenate([part.vertices() for part in again.parts]))
    view = render(scene, FRONT, size=16)
    np.testing.assert_array_equal(view, render(again, FRONT, size=16))
    assert view[..., 3].max() == 255


def test_all_kinds_occur():
    assert len({len(random_scene(seed).parts) for seed in range(20)}) > 3
    assert sum(scenes.SHARES) == pytest.approx(1)
    assert len(scenes.SHARES) == len(scenes.KINDS)


def unit_shapes() -> dict[str, shapes.Shape]:
    front, back = shapes.letter_mask("F"), shapes.letter_mask("7")
    return {
        "box": shapes.box(),
        "ball": shapes.ball(),
        "cylinder": shapes.cylinder(),
        "cone": shapes.cone(),
        "torus": shapes.torus(0.3),
        "metaballs": shapes.metaballs(np.random.default_rng(0)),
        "plate": shapes.plate(front, back, 0.4),
    }


@pytest.mark.parametrize("name", unit_shapes())
def test_surface_and_inside_agree(name):
    """The volume inside the triangles is that of the points that are inside; normals point outwards."""
    shape = unit_shapes()[name]
    corners = shape.vertices[shape.faces]
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    side = np.linspace(-1.41, 1.41, 64)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    assert volume == pytest.approx(shape.inside(grid).sum() * (side[1] - side[0]) ** 3, rel=0.06)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1, keepdims=True)
    flat = area[:, 0] > 1e-9
    normals = shape.normals[shape.faces[flat]].mean(1)
    assert ((normals * across[flat] / area[flat]).sum(1) > 0.2).mean() > 0.99


def test_letters_are_read_from_their_own_side():
    """F is not its own mirror image: its stem is on the left from either side."""
    front = shapes.letter_mask("F")
    plate = shapes.plate(front, front, 0.4)
    across, up = (a.ravel() for a in np.meshgrid(np.linspace(0.02, 0.98, 25), np.linspace(-0.9, 0.9, 40)))
    for y in (-0.8, 0.8):  # seen from +y, the left is at +x
        left = np.stack([np.sign(y) * across, np.full(len(up), y), up], 1)
        assert plate.inside(left).sum() > 1.3 * plate.inside(left * (-1, 1, 1)).sum() > 0


def test_mesh_and_surface_points():
    scene = Scene((ball(0.3, (0, 0, 0)), ball(0.3, (0.2, 0, 0), (0, 0, 1))))
    mesh = scene.mesh()
    assert mesh.visual.vertex_colors[0].tolist() == [255, 0, 0, 255]
    points = scene.surface_points(200)
    assert len(points) == 200
    assert not scene.inside(1.02 * (points - (0.1, 0, 0)) + (0.1, 0, 0)).any()
    np.testing.assert_array_equal(points, scene.surface_points(200))


def test_a_mesh_is_drawn_where_it_is():
    mesh = trimesh.creation.icosphere(3, radius=0.3)
    mesh.apply_translation((0, 0, 0.2))
    mesh.visual.vertex_colors = np.where(mesh.vertices[:, 2:] > 0.2, (250, 0, 0, 255), (0, 0, 250, 255))
    (picture,) = render_mesh(mesh, torch.tensor([[math.pi / 2, 0.7, 1.6]]), 64)
    shown = picture[..., 3] > 128
    radius = 0.3 / 1.6 / math.tan(FIELD_OF_VIEW / 2) * 32
    assert shown.sum() == pytest.approx(math.pi * radius**2, rel=0.06)
    rows = np.flatnonzero(shown.any(1))
    middle = 32 - 0.2 / 1.6 / math.tan(FIELD_OF_VIEW / 2) * 32
    assert rows.mean() == pytest.approx(middle, abs=1)
    upper, lower = picture[rows[4], 32], picture[rows[-4], 32]
    assert upper[0] > 100 > upper[2]
    assert lower[2] > 100 > lower[0]
    # A side is the brighter the more it faces the camera.
    assert picture[round(middle) - 5, 32, 0] > upper[0]
