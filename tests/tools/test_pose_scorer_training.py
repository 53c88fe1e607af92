"""Training of the network that scores poses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from latentdem.three_d.geometry.cameras import camera_axes, random_cameras
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import random_scene

NAME = "diffusion_pytorch_model.safetensors"


def run(tool, *args: object) -> str:
    result = CliRunner().invoke(tool.app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_error_of_a_pose_is_the_angle_between_directions(train_pose_scorer):
    true = random_cameras(2 * 50, torch.Generator().manual_seed(0)).view(50, 2, 3)
    same = train_pose_scorer.pose_errors(true, true)
    torch.testing.assert_close(same, torch.zeros(50), atol=1e-3, rtol=0)
    turned = true + torch.tensor([0.0, 0.7, 0.0])  # both cameras alike: the same relative pose
    torch.testing.assert_close(train_pose_scorer.pose_errors(turned, true), torch.zeros(50), atol=1e-3, rtol=0)
    moved = true.clone()
    moved[:, 1, :2] += 0.3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    positions = [camera_axes(pair)[0] for pair in (moved[:, 1], true[:, 1])]
    cosine = torch.cosine_similarity(*positions, dim=1)
    torch.testing.assert_close(train_pose_scorer.pose_errors(moved, true), cosine.acos(), atol=1e-4, rtol=1e-4)


def test_hypotheses_are_right_near_and_anywhere(train_pose_scorer):
    torch.manual_seed(0)
    true = random_cameras(2 * 200, torch.Generator().manual_seed(0)).view(200, 2, 3)
    cameras = train_pose_scorer.random_hypotheses(true)
    errors = train_pose_scorer.pose_errors(cameras, true[:, None]).rad2deg()
    heights = (cameras[..., 0] - true[:, None, :, 0]).rad2deg().std((0, 2))
    assert errors[:, :2].median() < 10
    assert 10 < errors[:, 2:4].median() < 30
    assert errors[:, 5:].median() > 40
    assert (heights[4:8] > 13).all()
    assert (torch.cat([heights[:4], heights[8:]]) < 11).all()
    assert not cameras[:, :, 0, 1:].any()


def test_half_of_the_views_are_moved_in_pairs(train_pose_scorer):
    torch.manual_seed(1)
    x = torch.ones(20, 3, 32, 32)
    x[:, :, 10:20, 12:22] = -0.2
    changed = train_pose_scorer.jitter(x, 0.5)
    middles = (changed[:, 0] < 0.9).float()
    moved = (middles != (x[:, 0] < 0.9).float()).flatten(1).any(1).view(10, 2)
    assert 0 < moved.any(1).sum() < 10
    assert torch.equal(changed[..., :2, :2], torch.ones(20, 3, 2, 2))  # white stays white
    assert (
        changed[~moved.any(1).repeat_interleave(2)].sub(x[0]).abs().max() < 0.4
    )  # the others are exposed only


def test_pairs_of_others_show_two_objects(train_pose_scorer):
    """Each row is the number of the object plus a tenth for the second view."""
    number = torch.arange(3.0).view(3, 1, 1, 1, 1, 1)
    rendered = number + torch.tensor([0.0, 0.1]).view(1, 1, 2, 1, 1, 1).expand(3, 4, 2, 5, 1, 1)
    latents = number[:, 0] + torch.tensor([0.1, 0.0]).view(1, 2, 1, 1, 1)
    seen, shown = train_pose_scorer.of_others(rendered, latents)
    first, second = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.1, 1.1, 2.1])
    torch.testing.assert_close(shown[..., 0, 0, 0], torch.stack([second, first], 1))
    torch.testing.assert_close(seen[..., 0, 0, 0], torch.stack([first, second], 1)[:, None].expand(3, 4, 2))


def test_noise_has_the_level_of_each_pair(train_pose_scorer):
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 1.0, 10.0]).view(3, 1, 1)
    values = 5 + spread * torch.randn(2, 4, 2, 3, 16, 16)
    noise = (train_pose_scorer.disturbed(values, torch.tensor([0.01, 0.3])) - values) / spread
    torch.testing.assert_close(noise[0].std((0, 1, 3, 4)), torch.full((3,), 0.01), atol=0, rtol=0.06)
    torch.testing.assert_close(noise[1].std((0, 1, 3, 4)), torch.full((3,), 0.3), atol=0, rtol=0.06)


def test_scores_say_whether_any_pose_is_right(train_pose_scorer):
    """A score above 0 is good where a pose is right, and bad where none is."""
    near, none = torch.tensor([[0.0, 2.0, 3.0]]), torch.full((1, 3), torch.inf)
    high, low = torch.tensor([[4.0, -4.0, -4.0]]), torch.full((1, 3), -4.0)
    loss = train_pose_scorer.cross_entropy
    assert loss(high, near) < 0.3 < 3 < loss(low, near)
    assert loss(low, none) < 0.1 < 3 < loss(high, none)
    far = torch.tensor([[math.radians(60), 2.0, 3.0]])
    assert loss(low, far) < 0.1 < loss(high, far)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two rendered objects to train on and one that is held out, five views each."""
    out = tmp_path_factory.mktemp("views")
    for name, seeds in (("train", (3, 4)), ("held_out", (5,))):
        (out / name).mkdir()
        cameras = [random_cameras(5, torch.Generator().manual_seed(seed)) for seed in seeds]
        views = [on_white(render(random_scene(s), c, 64)) for s, c in zip(seeds, cameras, strict=True)]
        np.save(out / name / "views.npy", np.stack(views))
        np.save(out / name / "cameras.npy", torch.stack(cameras).numpy())
        np.save(out / name / "solids.npy", np.zeros((len(seeds), 32**3 // 8), np.uint8))
    return out


def test_a_network_is_trained_and_exported(train_pose_scorer, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(train_pose_scorer, "PART", 2)
    monkeypatch.setattr(train_pose_scorer, "HYPOTHESES", 8)
    run(train_pose_scorer, "hypotheses", "--out", folder, "--parts", 1)
    part = torch.load(folder / "poses" / "train0000.pt", weights_only=True)
    assert part["rendered"].shape[:3] == (2, 8, 2)
    assert part["errors"].max() <= math.pi
    written = (folder / "poses" / "train0000.pt").stat().st_mtime_ns
    run(train_pose_scorer, "hypotheses", "--out", folder, "--parts", 1)
    assert (folder / "poses" / "train0000.pt").stat().st_mtime_ns == written  # not made again
    scorer = EMBEDDED_3D_WEIGHTS / "pose_scorer"
    training = "train", "--out", folder, "--batch", 2, "--chosen", 4, "--init", scorer
    text = run(train_pose_scorer, *training, "--steps", 2)
    assert "held_out, by both" in text
    run(train_pose_scorer, "export", "--out", folder, "--weights", tmp_path)
    for name in ("autoencoder", "network", "scheduler"):
        (tmp_path / name).symlink_to(EMBEDDED_3D_WEIGHTS / name)
    prior = EmbeddedViewPrior.from_pretrained(tmp_path)
    rendered, latents = part["rendered"][0, :, 0].float(), part["latents"][0, :1].float().expand(8, -1, -1, -1)
    posed = prior.posed(prior.condition(torch.zeros(8, 3, 64, 64)), torch.zeros(8, 3))
    posed = type(posed)((rendered,), posed.variance, posed.mean)
    expected = train_pose_scorer.trained(folder).half().float()(rendered, latents)
    torch.testing.assert_close(prior.score(posed, latents), expected, atol=0.02, rtol=0.02)
    run(train_pose_scorer, "export", "--out", folder, "--weights", tmp_path, "--base", scorer, "--share", 0)
    shipped, written = (load_file(path / NAME) for path in (scorer, tmp_path / "pose_scorer"))
    assert all(torch.equal(written[name], shipped[name]) for name in shipped)


def test_missing_poses_are_reported(train_pose_scorer, tmp_path):
    with pytest.raises(SystemExit, match=r"run `train_pose_scorer.py hypotheses` first"):
        train_pose_scorer.train(tmp_path)
