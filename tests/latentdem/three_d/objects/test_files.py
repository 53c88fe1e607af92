"""Objects from files: their colours, orientation, placement and inside, and files that cannot be used."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("embreex", reason="the extra three-d is not installed")

import trimesh

from latentdem.errors import UserError
from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, OBJECT_RADIUS
from latentdem.three_d.objects import files
from latentdem.three_d.objects.files import find_objects, read_object
from latentdem.three_d.objects.texture import Texture
from latentdem.three_d.synthetic.render import render

FRONT = torch.tensor([[math.pi / 2, 0.0, 1.6]])  # from the x axis: y to the right, z up
BEHIND = torch.tensor([[math.pi / 2, math.pi, 1.6]])
RED, GREEN, BLUE, YELLOW = (220, 0, 0), (0, 200, 0), (0, 0, 220), (220, 200, 0)


def quarters() -> Image.Image:
    """A picture with red and green above, blue and yellow below."""
    return Image.fromarray(np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)).resize((32, 32), 0)


def quad(picture: Image.Image | None = None) -> trimesh.Trimesh:
    """A square in the yz plane that faces the x axis, with the picture upright on it."""
    vertices = np.array([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], float)
    visual = trimesh.visual.TextureVisuals(
        uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float),
        material=trimesh.visual.material.SimpleMaterial(
            image=picture or quarters(), diffuse=(255, 255, 255, 255)
        ),
    )
    return trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def tetrahedron() -> trimesh.Trimesh:
    """Corners at the origin and on the axes, each with a colour."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    faces = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    colours = np.array([(250, 250, 250), RED, GREEN, BLUE], np.uint8)
    return trimesh.Trimesh(vertices, faces, vertex_colors=colours, process=False)


def hue(pixel: np.ndarray) -> tuple[int, ...]:
    """The colour without its brightness."""
    return tuple(np.rint(pixel[:3] / max(pixel[:3].max(), 1)).astype(int))


def corners_of(picture: np.ndarray) -> list[tuple[int, ...]]:
    """Hues in the middle of the four quarters of what is shown, row by row."""
    rows, columns = (np.flatnonzero((picture[..., 3] > 0).any(axis)) for axis in (1, 0))
    places = [np.percentile(span, (25, 75)).astype(int) for span in (rows, columns)]
    return [hue(picture[row, column]) for row in places[0] for column in places[1]]


@pytest.mark.parametrize("name", ["quad.glb", "quad.obj"])
def test_texture_is_upright_and_not_mirrored(tmp_path, name):
    quad().export(tmp_path / name)
    picture = render(read_object(tmp_path / name), FRONT, 32)[0]
    assert corners_of(picture) == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]


def test_square_is_where_a_pinhole_camera_shows_it(tmp_path):
    """Half the side s of a square at distance d covers s / (d tan(fov / 2)) of half the picture."""
    quad().export(tmp_path / "quad.glb")
    picture = render(read_object(tmp_path / "quad.glb"), FRONT, 64)[0]
    side = OBJECT_RADIUS / math.sqrt(2)
    pixels = 2 * 32 * side / 1.6 / math.tan(FIELD_OF_VIEW / 2)
    assert math.sqrt((picture[..., 3] / 255).sum()) == pytest.approx(pixels, abs=0.7)


def test_both_sides_of_a_square_are_lit_alike(tmp_path):
    quad(Image.new("RGB", (4, 4), (200, 200, 200))).export(tmp_path / "quad.glb")
    shown = read_object(tmp_path / "quad.glb")
    front, back = (render(shown, camera, 16, "camera")[0, 8, 8] for camera in (FRONT, BEHIND))
    np.testing.assert_allclose(front.astype(int), back, atol=1)
    assert front[0] > 150


@pytest.mark.parametrize("name", ["tetrahedron.ply", "tetrahedron.glb"])
def test_every_ray_meets_the_nearest_face_with_its_colour(tmp_path, name):
    """Against rays that are cut with each plane of the tetrahedron in turn."""
    tetrahedron().export(tmp_path / name)
    shown = read_object(tmp_path / name)
    camera = torch.tensor([[1.0, 0.6, 1.6]])
    picture = render(shown, camera, 16)[0]
    middle, scale = np.full(3, 0.5), OBJECT_RADIUS / math.sqrt(0.75)
    vertices = (tetrahedron().vertices - middle) * scale
    colours = tetrahedron().visual.vertex_colors[:, :3].astype(float)
    polar, azimuth, radius = camera[0].double().numpy()
    outward = np.array(
        [math.sin(polar) * math.cos(azimuth), math.sin(polar) * math.sin(azimuth), math.cos(polar)]
    )
    right = np.cross((0, 0, 1), outward)
    right /= np.linalg.norm(right)
    up = np.cross(outward, right)
    edge, checked = math.tan(FIELD_OF_VIEW / 2), 0
    for row in range(16):
        for column in range(16):
            if picture[row, column, 3] not in (0, 255):
                continue  # the outline crosses the pixel
            across, upwards = ((column + 0.5) / 8 - 1) * edge, (1 - (row + 0.5) / 8) * edge
            direction = across * right + upwards * up - outward
            nearest, expected = math.inf, None
            for face in tetrahedron().faces:
                a, b, c = vertices[face]
                try:
                    distance, u, v = np.linalg.solve(
                        np.stack([direction, a - b, a - c], 1), a - radius * outward
                    )
                except np.linalg.LinAlgError:
                    continue
                if min(u, v, 1 - u - v) >= 0 and distance < nearest:
                    nearest, expected = distance, (1 - u - v, u, v) @ colours[face]
            assert (picture[row, column, 3] == 255) == (expected is not None)
            if expected is not None:
                checked += 1
                shown_hue, true_hue = (np.array(c[:3]) / max(c[:3]) for c in (picture[row, column], expected))
                # A pixel is the mean over an edge between two faces at most.
                assert np.abs(shown_hue - true_hue).max() < 0.25
    assert checked > 10


def test_every_material_keeps_its_colour_and_place(tmp_path):
    scene = trimesh.Scene()
    for colour, height in (((255, 0, 0, 255), -0.5), ((0, 0, 255, 255), 0.5)):
        box = trimesh.creation.box((1, 1, 1))
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=colour)
        box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(box.vertices), 2)), material=material)
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix((0, 0, height)))
    scene.export(tmp_path / "two.glb")
    shown = read_object(tmp_path / "two.glb")
    assert len(shown.parts) == 2
    picture = render(shown, FRONT, 16)[0]
    assert hue(picture[5, 8]) == (0, 0, 1)
    assert hue(picture[10, 8]) == (1, 0, 0)


def test_axis_that_points_up(tmp_path):
    mesh = trimesh.creation.box((1, 4, 1))
    mesh.visual.vertex_colors = np.where(mesh.vertices[:, 1:2] > 0, (*RED, 255), (*BLUE, 255))
    mesh.export(tmp_path / "tall.ply")
    tall, lying = (render(read_object(tmp_path / "tall.ply", up), FRONT, 16)[0] for up in "yz")
    rows, columns = (np.ptp(np.flatnonzero((tall[..., 3] > 0).any(axis))) for axis in (1, 0))
    assert rows > 2 * columns
    assert hue(tall[4, 8]) == (1, 0, 0)
    assert hue(lying[8, 12]) == (1, 0, 0)  # y to the right


def test_objects_are_centred_scaled_and_turned_outwards(tmp_path):
    mesh = trimesh.creation.box((4, 2, 1))
    mesh.apply_translation((5, 6, 7))
    mesh.invert()
    mesh.export(tmp_path / "box.ply")
    shown = read_object(tmp_path / "box.ply")
    points = shown.parts[0].triangles.reshape(-1, 3)
    np.testing.assert_allclose(points.max(0), -points.min(0), atol=1e-6)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(OBJECT_RADIUS)
    half = points.max(0)
    grid = np.random.default_rng(0).uniform(-0.6, 0.6, (2000, 3))
    np.testing.assert_array_equal(shown.inside(grid), (np.abs(grid) < half).all(1))
    surface = shown.surface_points(100)
    assert len(surface) == 100
    np.testing.assert_allclose(np.abs(np.abs(surface) / half).max(1), 1, atol=1e-6)


def test_holes_and_surfaces_inside_others_do_not_matter_for_the_inside(tmp_path):
    ball = trimesh.creation.icosphere(2, radius=1.0)
    holed = trimesh.Trimesh(ball.vertices, ball.faces[6:], process=False)
    inner = trimesh.creation.icosphere(1, radius=0.4)
    trimesh.util.concatenate([holed, inner]).export(tmp_path / "ball.ply")
    shown = read_object(tmp_path / "ball.ply")
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (2000, 3))
    radius = np.linalg.norm(points, axis=1)
    clear = (radius < 0.5) | (radius > 0.6)
    agree = shown.inside(points) == (radius < 0.58)
    assert agree[clear].mean() > 0.99
    assert np.linalg.norm(shown.surface_points(300), axis=1).min() > 0.5  # none on the inner ball


def test_coarse_views_show_the_mean_of_a_fine_texture():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    texture = Texture(Image.fromarray(checks.astype(np.uint8)))
    places = np.random.default_rng(0).uniform(-2, 2, (50, 2))
    fine, coarse = (texture(places, np.full(50, c)) for c in (1.0, 8.0))
    assert np.ptp(fine) > 0.5
    np.testing.assert_allclose(coarse, 0.5, atol=0.01)


def test_textures_in_the_layout_of_scanned_objects_are_found(tmp_path):
    (tmp_path / "mug" / "meshes").mkdir(parents=True)
    (tmp_path / "mug" / "materials" / "textures").mkdir(parents=True)
    quad().export(tmp_path / "mug" / "meshes" / "model.obj")
    (image,) = (path for path in (tmp_path / "mug" / "meshes").iterdir() if path.suffix in (".png", ".jpg"))
    image.rename(tmp_path / "mug" / "materials" / "textures" / image.name)
    assert find_objects(tmp_path) == ["mug/meshes/model.obj"]
    shown = read_object(tmp_path / "mug" / "meshes" / "model.obj")
    assert shown.parts[0].texture is not None


def write_bad(folder, kind):
    """A file that cannot be used, and why."""
    if kind == "missing texture":
        quad().export(folder / "quad.obj")
        next(path for path in folder.iterdir() if path.suffix in (".png", ".jpg")).unlink()
        return folder / "quad.obj", "The mesh needs the file .*, which is missing or cannot be read"
    if kind == "garbage":
        (folder / "bad.glb").write_bytes(b"no mesh at all")
        return folder / "bad.glb", "The mesh cannot be read"
    if kind == "points":
        (folder / "bad.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
        return folder / "bad.obj", "no faces"
    if kind == "flat faces":
        (folder / "bad.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
        return folder / "bad.obj", "no faces that have an area"
    if kind == "not numbers":
        (folder / "bad.obj").write_text("v 0 0 nan\nv 1 0 0\nv 2 1 0\nf 1 2 3\n")
        return folder / "bad.obj", "not numbers"
    trimesh.creation.icosphere(2).export(folder / "bad.ply")
    return folder / "bad.ply", "more than 100 triangles; reduce it"


@pytest.mark.parametrize(
    "kind", ["missing texture", "garbage", "points", "flat faces", "not numbers", "too many faces"]
)
def test_files_that_cannot_be_used_get_one_sentence(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(files, "MOST_TRIANGLES", 100)
    path, reason = write_bad(tmp_path, kind)
    with pytest.raises(UserError, match=reason) as caught:
        read_object(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    (tmp_path / "large.ply").write_bytes(b"ply" + bytes(3 * 2**20))
    with pytest.raises(UserError, match="The file has 3 MiB; reduce it to 1 or fewer"):
        read_object(tmp_path / "large.ply")


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_size_of_the_coordinates_does_not_matter(tmp_path, scale):
    """Also where squares of them are too small or too large for a float."""
    box = trimesh.creation.box((1, 1, 1))
    lines = [f"v {x * scale!r} {y * scale!r} {z * scale!r}" for x, y, z in box.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (box.faces + 1).tolist()]
    (tmp_path / "box.obj").write_text("\n".join(lines))
    points = read_object(tmp_path / "box.obj").parts[0].triangles.reshape(-1, 3)
    np.testing.assert_allclose(np.abs(points), OBJECT_RADIUS / math.sqrt(3))


def test_folders_are_no_objects(tmp_path):
    (tmp_path / "mug.obj").mkdir()
    quad().export(tmp_path / "mug.obj" / "quad.glb")
    assert find_objects(tmp_path) == ["mug.obj/quad.glb"]


def test_folders_without_objects_are_refused(tmp_path):
    with pytest.raises(UserError, match="There are no objects"):
        find_objects(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        find_objects(tmp_path / "none")
