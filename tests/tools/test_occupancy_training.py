"""Training of the network that estimates the volume of an object."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from latentdem.three_d.geometry.cameras import grid_points, random_cameras
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.priors.network import FeatureVolume
from latentdem.three_d.priors.occupancy import GRID, Occupancy

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import random_scene


def run(tool, *args: object) -> str:
    result = CliRunner().invoke(tool.app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two rendered objects to train on and one that is held out, three views each; all fill x > 0."""
    out = tmp_path_factory.mktemp("views")
    solid = np.zeros((32, 32, 32), bool)  # along z, y and x
    solid[:, :, 16:] = True
    for name, seeds in (("train", (3, 4)), ("held_out", (5,))):
        (out / name).mkdir()
        cameras = [random_cameras(3, torch.Generator().manual_seed(seed)) for seed in seeds]
        views = [on_white(render(random_scene(s), c, 64)) for s, c in zip(seeds, cameras, strict=True)]
        np.save(out / name / "views.npy", np.stack(views))
        np.save(out / name / "cameras.npy", torch.stack(cameras).numpy())
        np.save(out / name / "solids.npy", np.stack([np.packbits(solid)] * len(seeds)))
    return out


@pytest.fixture(scope="module")
def prior():
    return EmbeddedViewPrior.from_pretrained()


def test_objects_turn_with_their_cameras(train_occupancy, folder, prior):
    """What is known of an object and what is true of it are turned by one angle."""
    data, model = train_occupancy.Views(folder / "train"), Occupancy()
    torch.manual_seed(2)
    order, angle = torch.rand(1, 3).argsort(1)[:, :2], 2 * math.pi * torch.rand(1, 1)
    torch.manual_seed(2)
    drawn = train_occupancy.draw(data, prior, model, torch.tensor([1]), 2, exact=True)
    cameras = data.cameras[1, order[0]] + torch.tensor([0.0, float(angle), 0.0])
    condition = prior.condition(data.images(torch.tensor([1, 1]), order[0]))
    x, logits = model.known_at(FeatureVolume(*condition.parts), cameras[None], grid_points(GRID)[None])
    torch.testing.assert_close(drawn.x, x, atol=0.1, rtol=0.05)  # bfloat16
    torch.testing.assert_close(drawn.logits, logits, atol=0.2, rtol=0.05)
    turned_back = cameras - torch.tensor([0.0, float(angle), 0.0])
    others, _ = model.known_at(FeatureVolume(*condition.parts), turned_back[None], grid_points(GRID)[None])
    assert (drawn.x - others).abs().max() > 1
    along = grid_points(GRID) @ torch.tensor([math.cos(float(angle)), math.sin(float(angle)), 0.0])
    radius = grid_points(GRID).norm(dim=-1)
    assert (drawn.inside[0][(along > 0.05) & (radius < 0.5)] > 0.99).all()
    assert (drawn.inside[0][along < -0.05] < 0.01).all()


def test_cameras_are_a_little_wrong_in_training(train_occupancy, folder, prior):
    data, model = train_occupancy.Views(folder / "train"), Occupancy()
    known = []
    for exact in (True, False):
        torch.manual_seed(4)
        known.append(train_occupancy.draw(data, prior, model, torch.tensor([0, 1] * 4), 2, exact))
    same = (known[0].x == known[1].x).flatten(1).all(1)
    assert 0 < same.sum() < len(same)
    torch.testing.assert_close(known[0].inside, known[1].inside)


def test_the_loss_is_cross_entropy_and_overlap(train_occupancy):
    inside = torch.zeros(2, 4, 4, 4)
    inside[0, :2] = inside[1, 0, 0, 0] = 1
    right, wrong = 20 * (2 * inside - 1), 20 * (1 - 2 * inside)
    good, bad = (train_occupancy.losses_of(logits, inside) for logits in (right, wrong))
    assert good["loss"] < 1e-5
    assert bad["entropy"] > 19
    common = torch.tensor([1 / (64 + 1), 1 / (64 + 1)])  # of nothing and all points, with 1 added to both
    torch.testing.assert_close(bad["overlap"], 1 - common.mean(), atol=1e-6, rtol=0)
    torch.testing.assert_close(bad["loss"], bad["entropy"] + train_occupancy.OVERLAP * bad["overlap"])


def test_overlaps_at_several_levels(train_occupancy):
    inside = torch.zeros(1, 4, 4, 4)
    inside[0, :2] = 1
    probability = torch.full((1, 4, 4, 4), 0.1)
    probability[0, 0], probability[0, 1], probability[0, 2] = 0.9, 0.35, 0.25
    found = train_occupancy.overlaps(torch.logit(probability), inside)
    torch.testing.assert_close(found, torch.tensor([[2 / 3], [1.0], [0.5], [0.5]]))


def test_a_network_is_trained_and_exported(train_occupancy, folder, tmp_path):
    text = run(train_occupancy, "train", "--out", folder, "--steps", 2, "--batch", 2)
    assert text.index("held_out, opacity:") < text.index("held_out, estimated:")
    run(train_occupancy, "export", "--out", folder, "--weights", tmp_path)
    for name in ("autoencoder", "network", "scheduler"):
        (tmp_path / name).symlink_to(EMBEDDED_3D_WEIGHTS / name)
    prior = EmbeddedViewPrior.from_pretrained(tmp_path)
    condition = prior.condition(torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64))
    cameras = torch.tensor([[float(condition.polar[0]), 0.0, 1.6]])
    points = grid_points(4)
    expected = (
        train_occupancy.trained(folder).half().float().at(FeatureVolume(*condition.parts), cameras, points)
    )
    torch.testing.assert_close(prior.filled(condition, torch.zeros(1, 3), points), expected)
