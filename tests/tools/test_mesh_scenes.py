"""Training scenes made of meshes: what is held out, and how objects are varied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("embreex")

import trimesh

from latentdem.three_d.geometry.cameras import OBJECT_RADIUS, random_cameras
from latentdem.three_d.objects.mesh_object import assembled
from latentdem.three_d.synthetic.render import render

SCANS = (
    "urdf-models-red_marker",
    "urdf-models-blue_marker",
    "libero-hope-milk",
    "ycb-sim-004_sugar_box",
    "cup",
)
MODELS = ("market-mug-1", "market-house-5", "market-house-7")


@pytest.fixture
def folder(tmp_path):
    """Boxes of different colours as scans and models."""
    rows = ["name,kind"]
    for kind, names in (("scan", SCANS), ("model", MODELS)):
        for index, name in enumerate(names):
            box = trimesh.creation.box((1, 2, 1 + index))
            box.visual.vertex_colors = np.array([40 * index, 90, 160, 255], np.uint8)
            box.export(tmp_path / f"{name}.glb")
            rows.append(f"{name},{kind}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.fixture
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return folder


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("urdf-models-small_clamp.glb", "clamp"),
        ("urdf-models-large_clamp.glb", "clamp"),
        ("ycb-sim-004_sugar_box.glb", "sugar_box"),
        ("libero-scanned-chefmate_8_frypan.glb", "frypan"),
        ("market-avocado-half.glb", "avocado"),
        ("shelf/mug.ply", "mug"),
    ],
)
def test_variants_of_an_object_are_of_one_family(mesh_scenes, name, family):
    assert mesh_scenes.family(name) == family


def test_whole_families_are_held_out(mesh_scenes, folder, monkeypatch):
    monkeypatch.setattr(mesh_scenes, "HELD_OUT_FAMILIES", 1)
    train, held_out = mesh_scenes.Meshes.split(folder)
    assert sorted(train.names + held_out.names) == sorted(f"{name}.glb" for name in SCANS + MODELS)
    families = [{mesh_scenes.family(name) for name in part.names} for part in (train, held_out)]
    assert not families[0] & families[1]
    assert "sugar_box" in families[1]  # it has published figures
    assert [len({mesh_scenes.family(name) for name in kind}) for kind in held_out.kinds] == [2, 1]
    again = mesh_scenes.Meshes.split(folder)
    assert again == (train, held_out)


def test_without_a_manifest_all_meshes_are_of_one_kind(mesh_scenes, folder, monkeypatch):
    monkeypatch.setattr(mesh_scenes, "HELD_OUT_FAMILIES", 2)
    (folder / "manifest.csv").unlink()
    train, held_out = mesh_scenes.Meshes.split(folder)
    assert len(train.kinds) == len(held_out.kinds) == 1


@pytest.mark.parametrize("printed", [False, True])
def test_scenes_fit_and_are_the_same_for_one_seed(mesh_scenes, folder, photos, printed):
    meshes = mesh_scenes.Meshes(folder, (tuple(f"{name}.glb" for name in SCANS),))
    cameras = random_cameras(1, torch.Generator().manual_seed(0))
    pictures = []
    for seed in (*range(8), *range(8)):
        scene, light = mesh_scenes.random_mesh_scene(meshes, photos if printed else None, seed)
        corners = np.concatenate([part.triangles.reshape(-1, 3) for part in scene.parts])
        assert np.linalg.norm(corners, axis=1).max() == pytest.approx(OBJECT_RADIUS)
        assert scene.inside(np.array([corners.mean(0)])).dtype == bool
        pictures.append(render(scene, cameras, 32, light))
    np.testing.assert_array_equal(pictures[:8], pictures[8:])
    assert all(not np.array_equal(pictures[0], other) for other in pictures[1:8])


def test_mirrored_surfaces_still_face_outwards(mesh_scenes, folder):
    shown = mesh_scenes.Meshes(folder, (("cup.glb",),)).load("cup.glb")
    mirrored = assembled(mesh_scenes._moved(list(shown.parts), np.diag([-1.0, 1, 1])))
    triangles = np.concatenate([part.triangles for part in mirrored.parts])
    mesh = trimesh.Trimesh(**trimesh.triangles.to_kwargs(triangles))
    assert mesh.volume > 0
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (500, 3))
    np.testing.assert_array_equal(mirrored.inside(points), shown.inside(points * [-1, 1, 1]))


def test_a_print_covers_every_side(mesh_scenes, folder, photos):
    rng = np.random.default_rng(0)
    shown = mesh_scenes.Meshes(folder, (("cup.glb",),)).load("cup.glb")
    texture, offsets = mesh_scenes._print(photos, rng), np.zeros((6, 2))
    part = mesh_scenes._printed(shown.parts[0], texture, offsets, 1.0)
    lengths = [
        np.linalg.norm(corners[:, 1:] - corners[:, :1], axis=2) for corners in (part.triangles, part.places)
    ]
    np.testing.assert_allclose(*lengths, rtol=1e-5)  # the sides of a box lie along the axes
    assert part.texture.pixels >= 128**2


def test_recoloured_surfaces_keep_their_brightness_within_limits(mesh_scenes):
    colours = np.random.default_rng(0).uniform(size=(100, 3))
    for seed in range(20):
        changed = mesh_scenes._Colours.random(np.random.default_rng(seed))(colours)
        assert changed.shape == colours.shape
        assert (changed.min() >= 0, changed.max() <= 1) == (True, True)
        assert changed.std() > 0.02
