"""`latentdem.three_d.reconstruct` and `latentdem views`, with the exact prior."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from latentdem.cli import app
from latentdem.errors import UserError
from latentdem.three_d import Reconstruction, ReconstructionConfig, reconstruct
from latentdem.three_d import reconstruction as module
from latentdem.three_d.geometry.cameras import mirrored
from latentdem.three_d.priors import adaptation

from .tiny_priors import inputs, tiny

QUICK = replace(ReconstructionConfig(), refinements=2)


def test_poses_and_views_of_two_pictures(exact):
    problem, phases = exact(2), []
    result = reconstruct(
        problem.views,
        prior=problem.prior,
        azimuths=3,
        elevations=(0.0, 10.0),
        steps=20,
        progress=lambda phase, done, total: phases.append((phase, done / total)),
    )
    assert problem.error_of(result.poses) < 1
    assert result.targets.shape == (6, 3)
    assert result.views.shape == (6, 3, 12, 12)
    truth = problem.truth(result.targets).clamp(-1, 1)
    assert (result.views - truth).square().mean().sqrt() < 0.05
    assert torch.equal(result.inputs, problem.views)
    assert [phase for phase, _ in phases] == sorted(phase for phase, _ in phases)
    shares = [share for _, share in phases]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert result.settings["poses_known"] is False
    assert result.plot().get_size_inches()[0] > 5


def test_known_poses_are_fixed(exact):
    problem = exact(3)
    known = problem.poses + torch.tensor([[0.0], [0.1], [0.2]])
    result = reconstruct(problem.views, prior=problem.prior, azimuths=1, steps=3, poses=known)
    torch.testing.assert_close(result.poses[:, :2], known[:, :2])
    assert torch.equal(result.confidence, torch.ones(3))


@pytest.mark.parametrize("views", [1, 2])
def test_mirrored_pictures_give_mirrored_views(views, monkeypatch):
    """The prior is not symmetric, but the mean is: left and right are exchanged."""
    monkeypatch.setattr(adaptation, "ADAPT_STEPS", 5)
    prior = tiny()
    x, _, _ = inputs(prior, views)
    poses = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.9, 0.0]])[:views]
    result, turned = (
        reconstruct(pictures, prior=prior, azimuths=5, steps=20, poses=known)
        for pictures, known in ((x, poses), (x.flip(-1), mirrored(poses)))
    )
    around = [0, 4, 3, 2, 1]
    torch.testing.assert_close(turned.views[around].flip(-1), result.views, rtol=1e-3, atol=1e-4)
    alone = reconstruct(
        x, prior=prior, azimuths=5, steps=20, poses=poses, config=ReconstructionConfig(mirrored=False)
    )
    assert (alone.views - result.views).abs().max() > 0.01
    torch.testing.assert_close(turned.filled.flip(1), result.filled, rtol=1e-3, atol=1e-4)
    assert (alone.filled - result.filled).abs().max() > 1e-4


def test_one_picture_needs_no_search(exact):
    problem = exact(1)
    result = reconstruct(problem.views, prior=problem.prior, azimuths=2, steps=10)
    assert not result.poses.any()
    truth = problem.truth(result.targets).clamp(-1, 1)
    assert (result.views - truth).square().mean().sqrt() < 0.05


def test_same_seed_same_result(exact):
    problem = exact(2)
    first, again, other = (
        reconstruct(problem.views, prior=problem.prior, azimuths=2, steps=4, seed=seed, config=QUICK)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.views, again.views)
    assert torch.equal(first.poses, again.poses)
    assert not torch.equal(first.poses, other.poses)


def test_twenty_pictures(exact):
    problem = exact(2)
    views = problem.views[:1] + 0.02 * torch.randn(20, 3, 12, 12)
    config = ReconstructionConfig(hypotheses=1, refinements=1)
    result = reconstruct(views.clamp(-1, 1), prior=problem.prior, azimuths=1, steps=2, config=config)
    assert result.poses.shape == (20, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": []}, "No image was given"),
        ({"images": torch.zeros(1, 3, 9, 9)}, r"shape \(n, 3, 12, 12\)"),
        ({"images": torch.ones(1, 3, 12, 12)}, "No object was found in Image 1"),
        ({"steps": 1}, "At least 2 steps"),
        ({"poses": torch.ones(2, 3)}, "relative to view 1"),
        ({"elevations": [95.0]}, "out of range"),
        ({"images": ["missing.png"]}, "does not exist"),
        ({"prior": "nowhere"}, "Unknown prior 'nowhere'"),
    ],
)
def test_mistakes_are_reported(exact, change, sentence):
    problem = exact(2)
    arguments = {"images": problem.views, "prior": problem.prior, "steps": 2, **change}
    with pytest.raises(UserError, match=sentence):
        reconstruct(arguments.pop("images"), **arguments)


@pytest.fixture
def few_steps(monkeypatch):
    volume = pytest.importorskip("latentdem.three_d.mesh.volume", reason="the extra three-d is not installed")
    monkeypatch.setattr(volume, "STEPS", 2)


@pytest.fixture
def pictures(exact, tmp_path, monkeypatch):
    """Two files of an object, in a current folder of their own; the prior is the exact one."""
    monkeypatch.chdir(tmp_path)
    problem = exact(2)
    pixels = torch.nn.functional.interpolate(problem.views.clamp(-1, 1), scale_factor=4)
    pixels = torch.nn.functional.pad(pixels, (8,) * 4, value=1.0)
    for name, view in zip(("front.png", "side.png"), pixels, strict=True):
        Image.fromarray(((view.permute(1, 2, 0) + 1) * 127.5).numpy().astype(np.uint8)).save(name)
    monkeypatch.setattr(module, "load_view_prior", lambda prior, device: problem.prior)
    monkeypatch.setattr(Reconstruction, "plot", lambda result: Figure((1, 1)))  # drawing takes seconds
    return ["front.png", "side.png"]


PLOT = Reconstruction.plot


def command(*arguments: str):
    return CliRunner().invoke(app, ["views", *arguments])


def test_command_writes_everything(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Reconstruction, "plot", PLOT)
    result = command(*pictures, "-o", "out", "--azimuths", "4", "--elevations", "0", "--steps", "3")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    views = [f"view_{i:03d}.png" for i in range(4)]
    assert names == ["figure.png", "poses.json", "report.json", "turntable.gif", *views]
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [image["image"] for image in poses["images"]] == pictures
    assert poses["images"][0] == {
        "image": "front.png",
        "polar": 0.0,
        "azimuth": 0.0,
        "radius": 0.0,
        "confidence": 1.0,
        "other_poses": [],
    }
    assert [view["azimuth"] for view in poses["views"]] == [0.0, 90.0, -180.0, -90.0]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["steps"] == 3
    assert report["background_removed"] == [True, True]
    with Image.open(tmp_path / "out" / "turntable.gif") as gif:
        assert gif.n_frames == 4
    with Image.open(tmp_path / "out" / "view_000.png") as view:
        assert view.size == (256, 256)
    assert "confidence" in result.output


def test_results_go_beside_the_first_picture_by_default(pictures, tmp_path):
    result = command(*pictures, "--azimuths", "2", "--steps", "2", "--resolution", "64")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "front_views" / "figure.png").exists()


def test_command_writes_a_mesh(pictures, tmp_path, few_steps):
    trimesh = pytest.importorskip("trimesh", reason="the extra three-d is not installed")
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")
    result = command(*pictures, "-o", "out", "--azimuths", "6", "--steps", "3", "--mesh", "out/cup.glb")
    assert result.exit_code == 0, result.output
    mesh = trimesh.load(tmp_path / "out" / "cup.glb", force="mesh")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["mesh"]["file"] == "out/cup.glb"
    assert report["mesh"]["triangles"] == len(mesh.faces) > 100
    assert 30 <= report["mesh"]["polar_of_view_1"] <= 110
    assert report["settings"]["steps"] == 3


def test_command_writes_a_page_without_a_mesh_file(pictures, tmp_path, few_steps):
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")
    arguments = (*pictures, "-o", "out", "--azimuths", "6", "--steps", "3")
    result = command(*arguments, "--html", "cup.html")
    assert result.exit_code == 0, result.output
    assert "out and cup.html" in result.output
    assert "front.png and 1 more" in (tmp_path / "cup.html").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["mesh"]["file"] is None
    assert "rename cup.txt" in command(*arguments, "--html", "cup.txt").stderr
    assert "11 of the 11 files to write exist" in command(*arguments, "--html", "cup.html").stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("cup.stl",), "rename cup.stl"), (("cup.ply", "--surface", "gsplat"), "'gsplat' needs")],
)
def test_command_refuses_an_impossible_mesh_before_the_run(pictures, tmp_path, arguments, sentence):
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")
    result = command(*pictures, "-o", "out", "--mesh", *arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()


def test_command_writes_a_video(pictures, tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    arguments = (*pictures, "-o", "out", "--azimuths", "2", "--steps", "2")
    assert command(*arguments, "--video", "turn.mp4").exit_code == 0
    assert (tmp_path / "turn.mp4").read_bytes()[4:8] == b"ftyp"
    assert "rename turn.mov" in command(*arguments, "--video", "turn.mov").stderr


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (
            UserError("No surface."),
            1,
            "No surface. The views are written as the prior made them, a mesh is not.",
        ),
        (KeyboardInterrupt(), 130, "Interrupted; the views are in out as the prior made them."),
    ],
)
def test_command_writes_the_views_without_a_mesh(pictures, tmp_path, monkeypatch, error, status, sentence):
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(Reconstruction, "solid", fail)
    result = command(*pictures, "-o", "out", "--azimuths", "1", "--steps", "2", "--mesh", "cup.glb")
    assert result.exit_code == status
    assert result.stderr.strip() == sentence
    assert (tmp_path / "out" / "view_000.png").exists()
    assert not (tmp_path / "cup.glb").exists()


def test_views_that_are_fine_enough_need_no_surface(pictures, tmp_path, monkeypatch):
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")
    made = module.reconstruct

    def fine(*arguments, **options):
        result = made(*arguments, **options)
        return replace(result, views=torch.nn.functional.interpolate(result.views, (256, 256)))

    def fail(*arguments):
        raise UserError("No surface.")

    monkeypatch.setattr(module, "reconstruct", fine)
    monkeypatch.setattr(Reconstruction, "solid", fail)
    result = command(*pictures, "-o", "out", "--azimuths", "1", "--steps", "2")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "view_000.png") as view:
        assert view.size == (256, 256)


def test_interrupted_command_resumes(pictures, tmp_path, monkeypatch):
    pytest.importorskip("fast_simplification", reason="the extra three-d is not installed")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    arguments = (*pictures, "-o", "out", "--azimuths", "1", "--steps", "2", "--checkpoint", "kept")
    with monkeypatch.context() as during:
        during.setattr(Reconstruction, "solid", interrupt)
        result = command(*arguments, "--mesh", "cup.ply")
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted; the run is kept in kept, and the same command resumes it."
    monkeypatch.setattr(module, "find_poses", interrupt)
    assert command(*arguments).exit_code == 0
    assert not (tmp_path / "kept").exists()


def test_command_says_which_pose_is_undecided(pictures, tmp_path, monkeypatch):
    find = module.find_poses
    monkeypatch.setattr(module, "find_poses", lambda *_: (find(*_)[0], torch.tensor([1.0, 0.3])))
    result = command(*pictures, "-o", "out", "--azimuths", "1", "--steps", "2")
    assert result.exit_code == 3
    assert (
        result.stderr.strip().splitlines()[-1].startswith("The pictures do not decide where side.png was taken")
    )
    assert (tmp_path / "out" / "view_000.png").exists()


def test_command_names_other_likely_poses(pictures, tmp_path, monkeypatch):
    """Unlikely ones are in the file alone."""
    find, others = module.find_poses, torch.zeros(2, 3, 4)
    others[1, :, 1] = torch.deg2rad(torch.tensor([90.0, -90.0, 0.0]))
    others[1, :, 3] = torch.tensor([0.3, 0.1, 0.0])

    def found(*arguments):
        posterior, _ = find(*arguments)
        return replace(posterior, others=others), torch.tensor([1.0, 0.6])

    monkeypatch.setattr(module, "find_poses", found)
    result = command(*pictures, "-o", "out", "--azimuths", "1", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "confidence 0.60; or azimuth 90.0, polar 0.0 (0.30)" in result.output
    assert "(0.10)" not in result.output
    images = json.loads((tmp_path / "out" / "poses.json").read_text())["images"]
    assert [other["azimuth"] for other in images[1]["other_poses"]] == [90.0, -90.0]
    assert [other["probability"] for other in images[1]["other_poses"]] == [0.3, 0.1]


def test_command_explains_a_single_picture(pictures):
    result = command(pictures[0], "-o", "out", "--azimuths", "1", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert "no pose to find" in result.output


def test_command_overwrites_no_input(pictures, tmp_path):
    (tmp_path / "view_000.png").write_bytes((tmp_path / "front.png").read_bytes())
    result = command("view_000.png", "side.png", "-o", ".")
    assert result.exit_code == 1
    assert "would be overwritten" in result.stderr


def test_bad_input_writes_no_files(pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for extra, sentence in (
        ("broken.png", "not an image"),
        ("front.png", "shows the same picture as front.png"),
    ):
        result = command(*pictures, extra, "-o", "out", "--steps", "2")
        assert result.exit_code == 1
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1
        assert sentence in lines[0]
        assert not any((tmp_path / "out").iterdir())
