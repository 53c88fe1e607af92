"""Views and meshes of other programs as rows of `latentdem evaluate-3d`."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("embreex", reason="the extra three-d is not installed")
pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")

import trimesh
from scipy.spatial.transform import Rotation

from latentdem.cli import app
from latentdem.errors import UserError
from latentdem.evaluation.method_names import Spec
from latentdem.io.images import write_image
from latentdem.three_d.evaluation import alignment, loop, measures, summary
from latentdem.three_d.evaluation.alignment import aligned
from latentdem.three_d.evaluation.cases import ViewSettings, make_case
from latentdem.three_d.evaluation.external import external_views
from latentdem.three_d.evaluation.loop import evaluate_views
from latentdem.three_d.evaluation.measures import compare_surface
from latentdem.three_d.geometry.cameras import OBJECT_RADIUS
from latentdem.three_d.synthetic.scenes import Scene

SIZE = 24
SETTINGS = ViewSettings(views=3, steps=2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small views, few points, and no prior, because no method of this package runs."""
    monkeypatch.setattr(loop, "load_view_prior", lambda prior, device: SimpleNamespace(image_size=SIZE))
    monkeypatch.setattr(summary, "SHOWN_OBJECTS", 1)
    monkeypatch.setattr(alignment, "_POINTS", 400)
    monkeypatch.setattr(measures, "SURFACE_POINTS", 800)
    monkeypatch.setattr(measures, "VOLUME_POINTS", 24)


@pytest.fixture
def box() -> tuple[trimesh.Trimesh, Scene]:
    """A box of three different sides and the object of the same shape."""
    scene = make_case(0, SETTINGS, SIZE).scene
    part = scene.parts[0]
    from latentdem.three_d.synthetic import shapes

    size = np.array([0.5, 0.3, 0.15])
    size *= OBJECT_RADIUS / np.linalg.norm(size)
    moved = type(part)(shapes.box(), part.texture, np.diag(size), np.zeros(3))
    mesh = trimesh.creation.box(2 * size)
    return mesh, Scene((moved,))


def test_mesh_in_other_coordinates_is_moved_onto_the_object(box: tuple[trimesh.Trimesh, Scene]) -> None:
    mesh, scene = box
    turn = Rotation.from_euler("x", -90, degrees=True) * Rotation.from_euler("z", 33, degrees=True)
    mesh.vertices = 7 * turn.apply(mesh.vertices) + (1, 2, 3)  # y up, another scale and place
    chamfer, iou = compare_surface(aligned(mesh, scene), scene)
    assert chamfer < 0.05
    assert iou > 0.9


def test_wrong_shape_stays_wrong(box: tuple[trimesh.Trimesh, Scene]) -> None:
    ball = trimesh.creation.icosphere(2, radius=3.0)
    assert compare_surface(aligned(ball, box[1]), box[1])[1] < 0.5


def test_published_views_and_meshes_are_scored(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    case = make_case(0, SETTINGS, SIZE)
    (theirs / "000" / "views").mkdir(parents=True)
    for i, view in enumerate(case.truth):
        write_image(theirs / "000" / "views" / f"{i}.png", view)
    (theirs / "001").mkdir()
    make_case(1, SETTINGS, SIZE).scene.mesh().export(theirs / "001" / "mesh.ply")
    (method,) = external_views([Spec("theirs", "published", str(theirs))], ["one"], 9.0)
    evaluation = evaluate_views(tmp_path / "out", SETTINGS, [method], objects=3, device="cpu")
    first, second = evaluation.rows
    assert first.psnr is not None
    assert first.psnr > 40
    assert (first.chamfer, first.seconds) == (None, None)
    assert second.psnr is None
    assert second.chamfer is not None
    assert second.chamfer < 0.2
    assert "neither views/*.png nor" in evaluation.failures["object 3, theirs"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| theirs | 2 |" in text
    assert "Failed, object 3, theirs: there are neither" in text
    assert "Meshes of other programs were centred" in text
    (theirs / "000" / "views" / "0.png").unlink()
    again = evaluate_views(tmp_path / "out", SETTINGS, [method], objects=1, device="cpu")
    assert "there are 2 views" in again.failures["object 1, theirs"]


def run(*args: object) -> str:
    result = CliRunner().invoke(app, ["evaluate-3d", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_program_gets_the_known_views_and_the_targets(tmp_path: Path) -> None:
    script = tmp_path / "novel.py"
    script.write_text(
        "import json, os, shutil, sys\n"
        "first, second, targets, output = sys.argv[1:]\n"
        "views = json.load(open(targets))['views']\n"
        "assert [round(view['azimuth']) for view in views] == [0, 120, 240], views\n"
        "os.makedirs(output + '/views')\n"
        "for i, view in enumerate(views):\n"
        "    shutil.copy(first if i % 2 == 0 else second, f'{output}/views/{i}.png')\n"
    )
    command = f"novel=command:{sys.executable} {script} {{view1}} {{view2}} {{targets}} {{output}}"
    out = tmp_path / "out"
    text = run("-o", out, "--objects", 1, "--views", 3, "--device", "cpu", "--methods", command)
    assert "| novel | 1 |" in text
    with (out / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["seconds"]) > 0
    assert float(row["psnr"]) > 5


def test_known_views_are_exported(tmp_path: Path) -> None:
    run("--objects", 2, "--views", 3, "--export", tmp_path / "inputs")
    assert sorted(path.name for path in (tmp_path / "inputs" / "001").iterdir()) == [
        "targets.json",
        "view1.png",
        "view2.png",
        "view3.png",
    ]
    targets = json.loads((tmp_path / "inputs" / "000" / "targets.json").read_text())
    assert targets["field of view"] == pytest.approx(49.1)


def test_wrong_names_and_commands_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not say where {view1} goes"):
        external_views([Spec("a", "command", "true {output}")], [], 9.0)
    with pytest.raises(UserError, match="Two methods are called 'one'"):
        external_views([Spec("one", "command", "true {view1} {output}")], ["one"], 9.0)
    assert "there are one, two, " in run("-o", tmp_path / "out", "--methods", "best").replace("\n", " ")


RECIPES = Path(__file__).resolve().parents[4] / "docs" / "reference" / "three_d.md"


def test_recipe_of_one_2_3_45_runs_a_program_of_the_same_conventions(tmp_path: Path) -> None:
    home = tmp_path / "home" / "One-2-3-45"
    home.mkdir(parents=True)
    trimesh.creation.icosphere(2).export(home / "ball.ply")
    (home / "run.py").write_text(
        "import argparse, os, shutil\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--img_path')\n"
        "parser.add_argument('--half_precision', action='store_true')\n"
        "args = parser.parse_args()\n"
        "assert os.path.exists(args.img_path)\n"
        "folder = './exp/' + args.img_path.split('/')[-1].split('.')[0]\n"
        "os.makedirs(folder, exist_ok=True)\n"
        "shutil.copy('ball.ply', folder + '/mesh.ply')\n"
    )
    (command,) = re.findall(
        r"^    latentdem evaluate-3d .*--methods '(One-2-3-45=command:.+)'$", RECIPES.read_text(), re.M
    )
    command = command.replace("~/", f"{tmp_path}/home/").replace("python ", f"{sys.executable} ")
    text = run("-o", tmp_path / "out", "--objects", 1, "--views", 3, "--device", "cpu", "--methods", command)
    assert "| One-2-3-45 | 1 |" in text
    assert "Failed" not in text
    shutil.rmtree(home)
