"""`evaluate_views` and `latentdem evaluate-3d`, with the exact prior and with true views."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("embreex", reason="the extra three-d is not installed")
pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")

import trimesh

from latentdem.cli import app
from latentdem.errors import UserError
from latentdem.three_d.evaluation import loop, measures, summary
from latentdem.three_d.evaluation.cases import (
    APART,
    POLARS,
    ViewCase,
    ViewSettings,
    known_cameras,
    make_case,
)
from latentdem.three_d.evaluation.loop import evaluate_views
from latentdem.three_d.evaluation.methods import METHODS, pick
from latentdem.three_d.geometry.cameras import relative_pose
from latentdem.three_d.geometry.poses import ring
from latentdem.three_d.mesh import volume as volumes
from latentdem.three_d.mesh.solid import Solid
from latentdem.three_d.output.result import Reconstruction
from latentdem.three_d.synthetic.scenes import random_scene

SETTINGS = ViewSettings(views=3, steps=12)


@pytest.fixture
def problem(exact, monkeypatch):
    """The exact prior and its object instead of procedural ones; every mesh is a ball."""
    problem = exact(3, 16)

    def case(index, settings, size):
        truth = problem.truth(ring(settings.views, (0.0,))).clamp(-1, 1)
        views = problem.views.clamp(-1, 1)
        return ViewCase(f"object {index + 1}", random_scene(5), problem.cameras[:3], views, truth)

    ball = Solid(trimesh.creation.icosphere(2, radius=0.4), torch.tensor([1.3, 0.0, 1.6]), 1.5)
    monkeypatch.setattr(loop, "load_view_prior", lambda prior, device: problem.prior)
    monkeypatch.setattr(loop, "make_case", case)
    monkeypatch.setattr(summary, "make_case", case)
    monkeypatch.setattr(Reconstruction, "solid", lambda result: ball)
    for name, count in (("SURFACE_POINTS", 500), ("VOLUME_POINTS", 16)):
        monkeypatch.setattr(measures, name, count)
    monkeypatch.setattr(summary, "MESH_SIZE", 16)
    monkeypatch.setattr(summary, "panels", lambda rows, path: path.touch())  # drawing takes seconds
    return problem


def test_cameras_are_apart_and_the_same_for_all_methods():
    for index in range(20):
        cameras = known_cameras(index, 0)
        pairs = [relative_pose(cameras[i], cameras[j])[1].abs() for i in range(3) for j in range(i)]
        assert min(pairs) >= APART - 1e-5
        assert (cameras[:, 0] >= POLARS[0]).all()
        assert (cameras[:, 0] <= POLARS[1]).all()
        assert torch.equal(cameras, known_cameras(index, 0))
        assert not torch.equal(cameras, known_cameras(index, 1))
    differences = [relative_pose(*known_cameras(index, 0)[[1, 0]])[1].abs() for index in range(50)]
    assert max(differences) > math.radians(150)
    assert min(differences) < math.radians(50)


def test_cases_are_pictures_of_held_out_objects():
    case, again = (make_case(1, SETTINGS, 16) for _ in range(2))
    assert case.inputs.shape == (3, 3, 16, 16)
    assert case.truth.shape == (3, 3, 16, 16)
    assert torch.equal(case.inputs, again.inputs)
    torch.testing.assert_close(case.truth[0], case.inputs[0])  # the ring begins with view 1
    assert not torch.equal(case.truth[1], case.truth[0])
    assert not torch.equal(case.inputs, make_case(2, SETTINGS, 16).inputs)


def test_every_method_on_every_object(problem, tmp_path):
    seen = []
    result = evaluate_views(
        tmp_path, SETTINGS, pick("one,two,two-true,three"), objects=1, progress=lambda *step: seen.append(step)
    )
    assert not result.failures
    one, two, posed, three = result.rows
    for row in result.rows:
        assert row.psnr > 25
        assert 0.8 < row.ssim <= 1
        assert 0 < row.iou < 1
        assert row.chamfer > 0
        assert row.seconds > 0
        assert row.mesh_seconds == 1.5
        assert row.height_error == pytest.approx(abs(math.degrees(1.3) - 70), abs=0.01)
    assert one.pose_error is posed.pose_error is two.pose_error_3 is None
    assert max(two.pose_error, three.pose_error, three.pose_error_3) < 1
    assert one.confidence is posed.confidence is two.confidence_3 is None
    assert min(two.confidence, three.confidence, three.confidence_3) > 0.5
    shares = [done for done, total, name in seen]
    assert shares == sorted(shares)
    assert shares[-1] == seen[-1][1] == 4

    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    files = {f"objects/000/{row.method}{ending}" for row in result.rows for ending in (".png", ".ply")}
    expected = {
        "metrics.csv",
        "settings.json",
        "summary.json",
        "table.md",
        "objects.md",
        "meshes.png",
        "objects/000/views.png",
    }
    assert names == expected | files
    with (tmp_path / "metrics.csv").open() as file:
        assert [record["method"] for record in csv.DictReader(file)] == ["one", "two", "two-true", "three"]
    views, mesh = result.store.load(two)
    assert views.shape == (3, 3, 16, 16)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.05)
    written = json.loads((tmp_path / "summary.json").read_text())["methods"]
    assert written["one"]["gain"] == 0
    assert written["two"]["gain"] == pytest.approx(two.psnr - one.psnr, abs=1e-3)
    assert written["three"]["pose_share"] == 1
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "| one view (Zero123) | 1 |" in lines[2]
    assert " - | - |" in lines[2]
    assert "| 100% |" in lines[3]
    objects = (tmp_path / "objects.md").read_text().splitlines()
    assert f"| object 1 | {one.psnr:.2f} / {one.ssim:.3f} / {one.iou:.3f} |" in objects[2]
    assert objects[3].startswith("| mean |")


def test_finished_results_are_kept_and_methods_are_added(problem, tmp_path, monkeypatch):
    calls, reconstruct = [], loop.reconstruct

    def once(images, **options):
        if len(calls) == 1:
            calls.append("interrupted")
            raise KeyboardInterrupt
        calls.append(len(images))
        return reconstruct(images, **options)

    monkeypatch.setattr(loop, "reconstruct", once)
    quick = replace(SETTINGS, steps=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate_views(tmp_path, quick, pick("one"), objects=2)
    evaluate_views(tmp_path, quick, pick("one"), objects=2)
    assert calls == [1, "interrupted", 1]
    result = evaluate_views(tmp_path, quick, pick("two-true,one"), objects=1)
    assert calls == [1, "interrupted", 1, 2]
    assert [row.method for row in result.rows] == ["one", "two-true"]
    assert len(result.store.rows) == 3
    with pytest.raises(UserError, match=r"with other settings \(steps 2 instead of 3\)"):
        evaluate_views(tmp_path, replace(quick, steps=3), pick("one"))
    (tmp_path / "objects" / "000" / "one.ply").unlink()
    evaluate_views(tmp_path, quick, pick("one"), objects=1)
    assert calls == [1, "interrupted", 1, 2, 1]


def test_failures_are_reported_and_skipped(problem, tmp_path, monkeypatch):
    reconstruct = loop.reconstruct

    def fail(images, **options):
        if len(images) == 1:
            raise UserError("No.")
        return reconstruct(images, **options)

    def no_surface(result):
        raise UserError("No surface.")

    monkeypatch.setattr(loop, "reconstruct", fail)
    monkeypatch.setattr(Reconstruction, "solid", no_surface)
    result = evaluate_views(tmp_path, replace(SETTINGS, steps=2), pick("one,two-true"), objects=1)
    assert result.failures == {"object 1, one": "No."}
    (row,) = result.rows
    assert (row.iou, row.chamfer, row.mesh_seconds) == (0, None, None)
    assert result.store.find(0, "two-true") == row
    assert json.loads((tmp_path / "summary.json").read_text())["failures"] == result.failures


def test_meshes_are_compared_in_the_coordinates_of_the_object(tmp_path, monkeypatch):
    """With true views, the mesh is turned from view 1 at azimuth 0 to the object and drawn beside it."""
    monkeypatch.setattr(volumes, "STEPS", 3)
    settings = ViewSettings(views=8)
    case = make_case(5, settings, 32)
    monkeypatch.setattr(loop, "make_case", lambda *arguments: case)
    monkeypatch.setattr(summary, "make_case", lambda *arguments: case)

    def reconstruct(images, poses, **options):
        cut = (True,) * len(images)
        count, targets = len(images), ring(8, (0.0,))
        return Reconstruction(
            images, poses, torch.ones(count), targets, case.truth, cut, (None,) * count, {"total": 1.0}, {}
        )

    class Prior:
        image_size = 32

    monkeypatch.setattr(loop, "load_view_prior", lambda prior, device: Prior())
    monkeypatch.setattr(loop, "reconstruct", reconstruct)
    (row,) = evaluate_views(tmp_path, settings, pick("two-true"), objects=1).rows
    assert row.psnr > 60
    assert row.iou > 0.6
    assert row.chamfer < 0.1
    assert row.height_error < 6
    assert (tmp_path / "meshes.png").stat().st_size > 1000


def test_methods_by_name():
    assert pick(None) == METHODS
    assert [method.name for method in pick("three, one")] == ["one", "three"]
    with pytest.raises(UserError, match="No method 'four'; there are one, two, two-true"):
        pick("one,four")
    ablations = [method for method in METHODS if method.config != METHODS[0].config]
    assert [method.name for method in ablations] == [
        "no-annealing",
        "no-pixelwise",
        "no-m-step",
        "no-bundle",
        "no-outlines",
        "no-mean",
        "no-mirror",
        "single-hypothesis",
    ]
    assert all(method.inputs == 2 for method in ablations)


def command(*arguments):
    return CliRunner().invoke(app, ["evaluate-3d", *arguments])


def test_command(problem, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = ("-o", str(out), "--objects", "1", "--views", "2", "--steps", "2", "--methods")
    result = command(*arguments, "one,no-m-step")
    assert result.exit_code == 0, result.output
    assert "two views, no M-step" in result.output
    assert f"Written to {out}" in result.output
    assert "No method 'four'" in command(*arguments, "four").stderr

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "reconstruct", interrupt)
    result = command(*arguments, "two")
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr


def test_for_files_only_poses_are_measured(problem, tmp_path, monkeypatch):
    """Pictures from files are larger, with an alpha channel, from the same cameras as the views."""
    given, reconstruct = [], loop.reconstruct

    def recorded(images, **options):
        given.append(images)
        return reconstruct(images, **options)

    monkeypatch.setattr(loop, "reconstruct", recorded)
    result = evaluate_views(tmp_path, SETTINGS, pick("one,two-files"), objects=1)
    assert not result.failures
    row = result.rows[1]
    assert row.pose_error is not None
    assert {row.psnr, row.ssim, row.height_error, row.chamfer, row.iou, row.mesh_seconds} == {None}
    pictures = given[1]
    assert [(picture.mode, picture.size) for picture in pictures] == [("RGBA", (256, 256))] * 2
    assert "| - |" in (tmp_path / "table.md").read_text().splitlines()[3]
    calls = len(given)
    again = evaluate_views(tmp_path, SETTINGS, pick("one,two-files"), objects=1).rows
    assert again[1].pose_error == pytest.approx(row.pose_error, rel=1e-4)
    assert again[1].psnr is None
    assert len(given) == calls


def test_files_show_what_the_views_show():
    case = make_case(1, SETTINGS, 64)
    for picture, view in zip(case.files(3), case.inputs, strict=True):
        white = Image.new("RGBA", picture.size, "white")
        small = Image.alpha_composite(white, picture).convert("RGB").reduce(4)
        difference = torch.from_numpy(np.array(small)).movedim(-1, 0) / 127.5 - 1 - view
        assert difference.abs().mean() < 0.02
