"""Training of the network that estimates how high a camera was, and the middle of an object in a crop."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

from latentdem.three_d.geometry.cameras import RADIUS, random_cameras
from latentdem.three_d.pictures import Crops
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.priors.framing import standardised

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import random_scene


def run(tool, *args: object) -> str:
    result = CliRunner().invoke(tool.app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_crops_have_the_right_cameras(train_framing):
    """Recropped by its camera, an object looks like its rendering from the usual distance, in the middle."""
    crops, crop_cameras = train_framing.crops_of(3, train_framing.procedural, 2, 64)
    assert crops.shape == (2, 2, 64, 64, 3)
    assert crop_cameras.shape == (2, 2, 5)
    scene, cameras = random_scene(3), random_cameras(2, torch.Generator().manual_seed(3))
    straight = torch.cat([cameras[:, :2], torch.full((2, 1), RADIUS)], 1)
    expected = torch.from_numpy(on_white(render(scene, straight, 64))).float() / 127.5 - 1
    usual = torch.tensor([0.0, 0.0, RADIUS, 0.0, 0.0])
    for view, picture in enumerate(render(scene, cameras, train_framing.RENDERED)):
        cut, first = (
            Crops([Image.fromarray(picture, "RGBA")], 64, ["it"]),
            torch.from_numpy(crop_cameras[view, 0]),
        )
        torch.testing.assert_close(first[:2], cameras[view, :2])
        recropped, original = (
            (version.pictures()[0].pixels[0].movedim(0, -1) - expected[view]).abs().mean()
            for version in (cut.framed((first - usual)[None]), cut)
        )
        assert recropped < 0.4 * original
        shown = torch.from_numpy(crops[view, 0]).float() / 127.5 - 1
        torch.testing.assert_close(shown, cut.pictures()[0].pixels[0].movedim(0, -1), atol=0.005, rtol=0)
    smaller = crop_cameras[:, 1, 2] / crop_cameras[:, 0, 2]
    assert (smaller >= 1).all()
    assert (smaller <= 1 / train_framing.SMALLEST + 1e-6).all()
    np.testing.assert_array_equal(crop_cameras[:, 1, 3:], crop_cameras[:, 0, 3:])
    covered = (crops < 250).any(-1).sum((2, 3))
    np.testing.assert_allclose(covered[:, 0] / covered[:, 1], smaller**2, rtol=0.1)


@pytest.fixture(scope="module")
def renderings(train_framing, tmp_path_factory):
    folder = tmp_path_factory.mktemp("renderings")
    run(
        train_framing,
        "render",
        "--out",
        folder,
        "--objects",
        4,
        "--views",
        2,
        "--held-out",
        8,
        "--workers",
        1,
    )
    return folder


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Views that are not cropped, as train_view_prior.py renders them."""
    folder = tmp_path_factory.mktemp("views")
    cameras = [random_cameras(2, torch.Generator().manual_seed(seed)) for seed in range(8)]
    pictures = [on_white(render(random_scene(5), c, 64)) for c in cameras]
    for name in ("train", "held_out"):
        (folder / name).mkdir()
        np.save(folder / name / "views.npy", np.stack(pictures))
        np.save(folder / name / "cameras.npy", torch.stack(cameras).numpy())
    return folder


@pytest.fixture
def rendered(renderings, tmp_path):
    """A copy that the test may change."""
    shutil.copytree(renderings, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_network_is_trained_and_exported(train_framing, rendered, views, monkeypatch):
    monkeypatch.setattr(train_framing, "RENDERED", 64)
    text = run(train_framing, "train", "--out", rendered, "--views", views, "--steps", 2, "--batch", 4)
    assert text.index("crops of held_out:") < text.index("estimated: ") < text.index("not estimated: ")
    assert text.index("not estimated: ") < text.index("views of held_out:")
    assert sorted(file.stem for file in (rendered / "network").glob("held_out*.png")) == [
        "held_out_crops",
        "held_out_views",
    ]
    weights = rendered / "prior"
    run(train_framing, "export", "--out", rendered, "--weights", weights)
    for part in ("autoencoder", "network", "scheduler"):
        (weights / part).symlink_to(EMBEDDED_3D_WEIGHTS / part)
    prior = EmbeddedViewPrior.from_pretrained(weights)
    x = train_framing.images(train_framing.read(rendered / "held_out")[0][:3])
    model = train_framing.trained(rendered).half().float()
    expected = model.cameras(prior.overview(x), prior.overview(x.flip(-1)))
    torch.testing.assert_close(prior.framing(x)[0], expected[0])


def test_missing_crops_are_reported(train_framing, tmp_path, rendered):
    with pytest.raises(SystemExit, match=r"run `train_framing.py render` first"):
        train_framing.read(tmp_path / "nothing")
    cameras = np.load(rendered / "train" / "cameras.npy", mmap_mode="r+")
    cameras[1] = np.nan
    cameras.flush()
    with pytest.raises(SystemExit, match="to the end"):
        train_framing.read(rendered / "train")
    with pytest.raises(SystemExit, match=r"No training objects in .*nothing"):
        train_framing.training_folders(tmp_path / "nothing")


def test_the_likelihood_is_that_of_a_gaussian(train_framing):
    generator = torch.Generator().manual_seed(0)
    means, log_variances, targets = (torch.randn(3, 4, generator=generator) for _ in range(3))
    losses = train_framing.likelihood(lambda x: (means, log_variances), torch.zeros(3, 1), targets)
    normal = torch.distributions.Normal(means, (log_variances / 2).exp())
    expected = -normal.log_prob(targets).mean() - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["squared"], F.mse_loss(means, targets))


def test_targets_are_standardised_cameras(train_framing, rendered, views):
    """Those of mirror images, which some pictures are encoded as, have the other sign to the right."""
    prior = EmbeddedViewPrior.from_pretrained()
    torch.manual_seed(0)
    data = train_framing.CropData(prior, rendered / "train", views / "held_out")
    crops, cameras = train_framing.read(rendered / "train")
    expected = standardised(cameras)
    count, mirrored = len(cameras), (data.targets[: len(cameras), 2] != expected[:, 2]).float()
    assert 0 < mirrored.mean() < 1
    expected[:, 2] *= 1 - 2 * mirrored
    torch.testing.assert_close(data.targets[:count], expected)
    x = train_framing.images(crops)
    seen = torch.where(mirrored.bool()[:, None, None, None], prior.overview(x.flip(-1)), prior.overview(x))
    torch.testing.assert_close(data.features[:count].float(), seen, atol=0.2, rtol=0.05)


def test_the_middle_of_views_is_known(train_framing, views):
    pictures, cameras = train_framing.read(views / "held_out")
    assert pictures.shape == (8 * 2, 64, 64, 3)
    assert not cameras[:, 3:].any()
    assert torch.equal(cameras[:2, :3], random_cameras(2, torch.Generator().manual_seed(0)))
