"""`latentdem evaluate-3d` on a folder of files, some of which cannot be used."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("embreex", reason="the extra three-d is not installed")
pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")

import trimesh

from latentdem.cli import app
from latentdem.three_d.evaluation import loop, measures, summary
from latentdem.three_d.evaluation.measures import compare_surface
from latentdem.three_d.geometry.poses import ring
from latentdem.three_d.mesh.solid import Solid
from latentdem.three_d.objects.files import read_object
from latentdem.three_d.output.result import Reconstruction


def write_cube(path):
    """A cube with a picture of four colours on its sides."""
    cube = trimesh.creation.box((1, 1, 1))
    picture = Image.fromarray(np.array([[(200, 0, 0), (0, 200, 0)], [(0, 0, 200), (200, 200, 0)]], np.uint8))
    material = trimesh.visual.material.SimpleMaterial(image=picture)
    cube.visual = trimesh.visual.TextureVisuals(uv=(cube.vertices[:, :2] + 1) / 2, material=material)
    cube.export(path)


@pytest.fixture
def quick(monkeypatch):
    """Reconstructions that show the known view from everywhere, with a ball as the mesh."""

    class Prior:
        image_size = 16

    def reconstruct(images, azimuths, **options):
        count, targets = len(images), ring(azimuths, (0.0,))
        views = images[:1].repeat(azimuths, 1, 1, 1)
        poses, sure = torch.zeros(count, 3), torch.full((count,), 0.75)
        cut = (True,) * count
        return Reconstruction(images, poses, sure, targets, views, cut, (None,) * count, {"total": 1.0}, {})

    ball = Solid(trimesh.creation.icosphere(2, radius=0.4), torch.tensor([1.3, 0.0, 1.6]), 1.5)
    monkeypatch.setattr(loop, "load_view_prior", lambda prior, device: Prior())
    monkeypatch.setattr(loop, "reconstruct", reconstruct)
    monkeypatch.setattr(Reconstruction, "solid", lambda result: ball)
    for name, count in (("SURFACE_POINTS", 200), ("VOLUME_POINTS", 12)):
        monkeypatch.setattr(measures, name, count)
    monkeypatch.setattr(summary, "MESH_SIZE", 16)
    monkeypatch.setattr(summary, "panels", lambda rows, path: path.touch())  # drawing takes seconds


def command(*arguments):
    return CliRunner().invoke(app, ["evaluate-3d", *map(str, arguments), "--methods", "one,two"])


def test_objects_that_cannot_be_used_are_listed_and_the_others_measured(quick, tmp_path):
    folder, out = tmp_path / "objects", tmp_path / "out"
    for name in ("cube", "mug", "toy"):
        (folder / name).mkdir(parents=True)
        write_cube(folder / name / "mesh.obj")
    next(path for path in (folder / "mug").iterdir() if path.suffix in (".png", ".jpg")).unlink()
    (folder / "points.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    (folder / "cut.glb").write_bytes(b"glTF")
    result = command(folder, "-o", out)
    assert result.exit_code == 4, result.output
    assert "Traceback" not in result.output
    skipped = [line for line in result.stderr.splitlines() if "Skipped: " in line]
    assert len(skipped) == 3
    for reason in ("cut.glb: The mesh cannot", "mug/mesh.obj: The mesh needs", "points.obj: The mesh has no"):
        assert any(reason in line for line in skipped)
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["cube/mesh.obj"] * 2 + ["toy/mesh.obj"] * 2
    assert [row["confidence"] for row in rows] == ["", "0.75"] * 2
    text = (out / "objects.md").read_text()
    assert "| toy/mesh.obj |" in text
    assert "Failed, points.obj: The mesh has no" in text


def test_a_folder_in_which_nothing_can_be_used_is_an_error(quick, tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "points.obj").write_text("v 0 0 0\n")
    result = command(tmp_path / "objects", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "points.obj: The mesh has no faces that have an area" in result.stderr


def test_a_sheet_has_no_volume_to_compare(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "VOLUME_POINTS", 12)
    sheet = trimesh.Trimesh([[0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]], [[0, 1, 2], [0, 2, 3]])
    sheet.export(tmp_path / "sheet.ply")
    ball = trimesh.creation.icosphere(1, radius=0.4)
    chamfer, iou = compare_surface(ball, read_object(tmp_path / "sheet.ply"))
    assert chamfer > 0.1
    assert iou is None
