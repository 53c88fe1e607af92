"""Two training steps of the view-conditioned prior."""

from __future__ import annotations

import csv
import shutil
from functools import partial, partialmethod

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latentdem.three_d.priors.embedded import EmbeddedViewPrior
from latentdem.three_d.priors.network import ViewNetwork
from latentdem.three_d.synthetic.scenes import random_scene

pytest.importorskip("embreex", reason="the extra three-d is not installed")

import trimesh


def run(tool, *args: object) -> str:
    result = CliRunner().invoke(tool.app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def renderings(train_view_prior, tmp_path_factory):
    folder = tmp_path_factory.mktemp("renderings")
    run(train_view_prior, *RENDER, "--out", folder)
    return folder


@pytest.fixture
def rendered(renderings, tmp_path):
    """A copy that the test may change."""
    shutil.copytree(renderings, tmp_path, dirs_exist_ok=True)
    return tmp_path


RENDER = ("render", "--objects", 4, "--views", 5, "--held-out", 2, "--size", 32, "--workers", 1)


def test_views_are_rendered_once(train_view_prior, rendered):
    pictures = np.load(rendered / "train" / "views.npy")
    cameras = np.load(rendered / "train" / "cameras.npy", mmap_mode="r+")
    assert pictures.shape == (4, 5, 32, 32, 3)
    assert np.isfinite(cameras).all()
    cameras[2] = np.nan  # as after an interruption before this object
    cameras.flush()
    np.lib.format.open_memmap(rendered / "train" / "views.npy", mode="r+")[[1, 2]] = 0
    data = train_view_prior.Views(rendered / "train")
    assert data.count == 2
    np.testing.assert_array_equal(data.pictures[:1], pictures[:1])
    run(train_view_prior, *RENDER, "--out", rendered)
    again = np.load(rendered / "train" / "views.npy")
    np.testing.assert_array_equal(again[[0, 2, 3]], pictures[[0, 2, 3]])
    assert not again[1].any()
    assert data.update() == 4
    np.testing.assert_array_equal(data.pictures[2:], pictures[2:])


def test_groups_are_different_views_of_one_object(train_view_prior, rendered):
    data = train_view_prior.Views(rendered / "train")
    objects, known, targets = data.groups(100, 4)
    assert targets.shape == (100, 4)
    assert (torch.cat([known[:, None], targets], 1).sort(1).values == torch.arange(5)).all()
    assert set(objects.tolist()) == set(range(4))
    x = data.images(objects[:2], known[:2])
    assert x.shape == (2, 3, 32, 32)
    assert (x.min() < 0, x.max()) == (True, 1)


def test_objects_of_several_folders_are_drawn_by_their_shares(train_view_prior, rendered):
    folders = (rendered / "train", rendered / "held_out")
    data = train_view_prior.Views(*folders, shares=(0.25, 0.75))
    assert data.count == 6
    own = train_view_prior.Views(folders[1])
    assert torch.equal(data.pictures[4:], own.pictures)
    assert torch.equal(data.cameras[4:], own.cameras)
    drawn = torch.bincount(data.draw(4000), minlength=6) / 4000
    torch.testing.assert_close(drawn, torch.tensor([0.0625] * 4 + [0.375] * 2), atol=0.03, rtol=0)


def test_folders_with_other_views_are_refused(train_view_prior, rendered):
    views = rendered / "held_out" / "views.npy"
    np.save(views, np.load(views)[:, :3])
    with pytest.raises(SystemExit, match="differ in number or size"):
        train_view_prior.Views(rendered / "train", rendered / "held_out")


def test_meshes_are_rendered_beside_procedural_objects(train_view_prior, rendered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    for name in ("apple", "ball", "cone", "disc", "egg", "fan", "gem", "hat", "ink", "jar"):
        trimesh.creation.icosphere(1).export(folder / f"{name}.ply")
    run(train_view_prior, *RENDER, "--out", rendered, "--meshes", folder)
    kept = np.load(rendered / "held_out_meshes" / "views.npy")
    assert kept.shape == (9, 5, 32, 32, 3)  # the apple, and eight families by their hash
    place = torch.device("cpu")
    assert train_view_prior.training_views(rendered, place).count == 8


def test_volumes_of_objects(train_view_prior, rendered):
    data = train_view_prior.Views(rendered / "train")
    scenes = [random_scene(seed) for seed in range(4)]
    points = torch.from_numpy(np.stack([scene.surface_points(50) for scene in scenes])).float()
    deep, outside = 0.0 * points, 3.0 * points
    assert (data.inside(torch.arange(4), outside) == 0).all()
    share = data.inside(torch.arange(4), points)
    assert share.shape == (4, 50)
    assert 0.2 < share.mean() < 0.8
    truth = torch.tensor([bool(scene.inside(np.zeros((1, 3)))[0]) for scene in scenes])
    assert torch.equal(data.inside(torch.arange(4), deep)[:, 0] > 0.5, truth)


def test_missing_renderings_are_reported(train_view_prior, tmp_path):
    with pytest.raises(SystemExit, match="No rendered objects"):
        train_view_prior.Views(tmp_path)


def test_view_prior_trains_resumes_and_is_loaded(train_view_prior, rendered, monkeypatch):
    class Small(ViewNetwork):
        __init__ = partialmethod(ViewNetwork.__init__, widths=(16, 32), volume_features=4, rendered=16)

    monkeypatch.setattr(train_view_prior, "ViewNetwork", Small)
    evaluate = train_view_prior.evaluate
    monkeypatch.setattr(train_view_prior, "evaluate", partial(evaluate, pairs=2, steps=2))
    run(train_view_prior, "autoencoder", "--out", rendered, "--steps", 1, "--batch", 1)
    network = (train_view_prior, "network", "--out", rendered, "--batch", 2, "--targets", 2, "--steps")
    assert "step 1, held_out: noise_100" in run(*network, 1)
    run(*network, 2, "--denoised", 0.5)
    with (rendered / "network" / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert [row.pop("objects") for row in rows] == ["held_out"] * 2
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    weights = rendered / "weights"
    run(train_view_prior, "export", "--out", rendered, "--weights", weights)
    monkeypatch.undo()
    state = EmbeddedViewPrior.from_pretrained(weights).network.state_dict()
    trained = train_view_prior.averaged_weights(rendered / "network" / "checkpoint.pt")
    assert trained["exchange.correction.weight"].any()
    for name, value in trained.items():
        torch.testing.assert_close(state[name], value.half().float())
    mixture = rendered / "mixture"
    base = Small.from_config(Small.load_config(rendered / "network"))
    base.save_pretrained(rendered / "base")
    mixing = ("--base", rendered / "base", "--share", 0.25)
    run(train_view_prior, "export", "--out", rendered, "--weights", mixture, *mixing)
    mixed = EmbeddedViewPrior.from_pretrained(mixture).network.state_dict()
    for name, value in base.state_dict().items():
        expected = 0.25 * trained[name] + 0.75 * value
        torch.testing.assert_close(mixed[name], expected, rtol=1e-3, atol=1e-4)


def test_too_few_views_of_an_object(train_view_prior, rendered):
    run(train_view_prior, "autoencoder", "--out", rendered, "--steps", 1, "--batch", 1)
    arguments = ["network", "--out", str(rendered), "--targets", "3", "--steps", "1"]
    result = CliRunner().invoke(train_view_prior.app, arguments)
    assert result.exit_code == 1
    assert "has 5 views; 3 known and 3 predicted ones need 6" in result.output


@pytest.mark.gpu
def test_a_graph_gives_the_losses_and_gradients_of_its_inputs(train_view_prior):
    from _view_step import _Graph  # the module that the program imported

    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0], device="cuda"))
    unused = torch.nn.Parameter(torch.ones(1, device="cuda"))
    inputs = torch.zeros(2, device="cuda")
    graph = _Graph(lambda x: {"loss": (weight * x).square().sum()}, (inputs,), [weight, unused])
    first = graph((inputs + 1,))
    torch.testing.assert_close(weight.grad, 2 * weight.detach())
    second = graph((inputs - 2,))
    torch.testing.assert_close(weight.grad, 8 * weight.detach())
    assert unused.grad is None
    assert not second["loss"].requires_grad
    assert (float(first["loss"]), float(second["loss"])) == (13, 52)
