"""The shipped view-conditioned prior, on example pictures of an object that is not in its training data."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from latentdem.metrics import psnr
from latentdem.three_d import ReconstructionConfig, reconstruct
from latentdem.three_d.evaluation.measures import pose_error
from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, RADIUS, random_cameras
from latentdem.three_d.pictures import Crops
from latentdem.three_d.pose_search import candidates, objective, search
from latentdem.three_d.pose_search.known_views import KnownViews
from latentdem.three_d.pose_search.noise_error import PairError
from latentdem.three_d.priors import adaptation
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"
CAMERAS = torch.tensor(
    [[1.15, 0.4, 1.6], [1.25, 2.4, 1.6]]
)  # of the first two pictures, see examples/README.md


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_pose_of_the_example_is_found(quick, monkeypatch):
    config = ReconstructionConfig()
    if quick:
        monkeypatch.setattr(candidates, "GRID_AZIMUTHS", 8)
        monkeypatch.setattr(candidates, "GRID_POLARS", (-15.0, 15.0))
        monkeypatch.setattr(objective, "SCORE_DRAWS", 1)
        monkeypatch.setattr(search, "FINAL_DRAWS", 6)
        monkeypatch.setattr(adaptation, "ADAPT_STEPS", 5)
        config = ReconstructionConfig(
            hypotheses=2, refinements=10, posterior_size=1, bundled=False, mirrored=False, rate=0.0
        )
    pictures = [EXAMPLES / f"chair_{i}.png" for i in (1, 2)]
    result = reconstruct(pictures, azimuths=4, steps=4, config=config)
    error = pose_error(CAMERAS[0] + result.poses, CAMERAS)
    found = f"{result.polar}, {result.poses.tolist()} on {torch.backends.cpu.get_cpu_capability()}"
    assert float(error[1]) < 20, found
    assert float(result.confidence[1]) > 0.9, found
    # The first of the new views is from the camera of the first picture.
    first = psnr(result.views[0], result.inputs[0])
    assert first > 18
    assert first > psnr(result.views[2], result.inputs[0]) + 3


def test_shift_of_a_picture_is_recovered():
    """With known poses, the best principal point of a picture moves by the shift of its crop."""
    prior = EmbeddedViewPrior.from_pretrained()
    crops = Crops([EXAMPLES / f"chair_{i}.png" for i in (1, 2)], prior.image_size, ["a", "b"])
    sides = torch.arange(-3, 4) * 0.025
    offsets = torch.cartesian_prod(sides, sides)
    cameras = F.pad(CAMERAS - torch.tensor([0.0, CAMERAS[0, 1], RADIUS]), (0, 2)).repeat(len(offsets), 1, 1)
    side = 2 * RADIUS * math.tan(FIELD_OF_VIEW / 2)
    cameras[:, 1, 3:] = offsets * side
    pair = torch.zeros(len(offsets), dtype=torch.long), torch.ones(len(offsets), dtype=torch.long)
    best = []
    for shift in (0.0, 0.05):
        pictures = crops.framed(
            F.pad(torch.tensor([[0.0, 0.0], [shift * side, -shift * side]]), (3, 0))
        ).pictures()
        known = KnownViews.of(pictures, prior, torch.device("cpu"), mirrored=False)
        error = PairError(prior, known.condition.cropped(), prior.encode(known.pixels))
        draws = error.draws(2, torch.Generator(), rough=True)
        best.append(offsets[error(*pair, cameras, draws).sum(0).argmin()])
    # A crop more to the right shows the object more to the left.
    torch.testing.assert_close(best[1] - best[0], torch.tensor([-0.05, 0.05]), atol=0.026, rtol=0)


def test_middle_of_an_object_is_found():
    """For held-out objects, more accurately than by the middle of their visible part."""
    pytest.importorskip("embreex", reason="the extra three-d is not installed")
    from latentdem.three_d.synthetic.render import render
    from latentdem.three_d.synthetic.scenes import HELD_OUT, random_scene

    prior, cameras = EmbeddedViewPrior.from_pretrained(), random_cameras(24, torch.Generator().manual_seed(2))
    pixels, middles = [], []
    for i, camera in enumerate(cameras):
        picture = render(random_scene(HELD_OUT + 8000 + i), camera[None], 128)[0]
        crops = Crops([Image.fromarray(picture, "RGBA")], prior.image_size, ["it"])
        pixels.append(crops.pictures()[0].pixels)
        seen = torch.from_numpy(picture[..., 3] > 127).nonzero()
        down, right = ((seen.amin(0) + seen.amax(0) + 1) / 2 - 64).tolist()
        pixel = 2 * float(camera[2]) * math.tan(FIELD_OF_VIEW / 2) / 128
        middles.append([-right * pixel, down * pixel])
    estimate, true = prior.framing(torch.cat(pixels))[0][:, 3:], torch.tensor(middles)
    assert (estimate - true).square().mean() < 0.6 * true.square().mean()


def test_expected_errors_of_heights_are_those_they_have():
    """Of held-out objects: the half with the smaller expected errors has at most half the errors."""
    pytest.importorskip("embreex", reason="the extra three-d is not installed")
    from latentdem.three_d.synthetic.render import on_white, render
    from latentdem.three_d.synthetic.scenes import HELD_OUT, random_scene

    prior, cameras = EmbeddedViewPrior.from_pretrained(), random_cameras(48, torch.Generator().manual_seed(3))
    pictures = [render(random_scene(HELD_OUT + 8200 + i), camera[None]) for i, camera in enumerate(cameras)]
    views = torch.cat([torch.from_numpy(on_white(picture)) for picture in pictures])
    condition = prior.condition(views.movedim(-1, 1) / 127.5 - 1)
    order = condition.deviation[:, 0].argsort()
    certain, others = ((condition.polar - cameras[:, 0])[order].square().view(2, -1).mean(1)).sqrt()
    assert certain < 0.5 * others


@pytest.mark.slow
@pytest.mark.parametrize("cropped", [True, False])
def test_poses_of_six_pictures_are_found(cropped):
    """For an object whose front and back look alike, as files or as views that are not centred or scaled."""
    pytest.importorskip("embreex", reason="the extra three-d is not installed")
    from latentdem.three_d.synthetic.render import on_white, render
    from latentdem.three_d.synthetic.scenes import HELD_OUT, random_scene

    generator = torch.Generator().manual_seed(1)
    polar, azimuth = 1 + 0.5 * torch.rand(6, generator=generator), 6.28 * torch.rand(6, generator=generator)
    cameras = torch.stack([polar, azimuth, torch.full((6,), 1.6)], 1)
    pictures = render(random_scene(HELD_OUT + 7000), cameras)
    views = torch.from_numpy(on_white(pictures)).movedim(-1, 1) / 127.5 - 1
    images = [Image.fromarray(picture, "RGBA") for picture in pictures] if cropped else views
    result = reconstruct(images, azimuths=1, steps=2)
    error = pose_error(cameras[:1] + result.poses, cameras)[1:]
    assert float(error.max()) < 20
    assert float(error.median()) < 10


def test_weights_are_small():
    """Those of the prior itself, and those that only judge poses."""
    sizes = {file.parent.name: file.stat().st_size for file in EMBEDDED_3D_WEIGHTS.rglob("*.safetensors")}
    assert sizes.pop("pose_scorer") < 1e6
    assert sorted(sizes) == ["autoencoder", "framing", "network", "occupancy"]
    assert sum(sizes.values()) < 24e6


def test_true_poses_have_the_best_score():
    """Of views of held-out objects, against poses that are far from the true one."""
    pytest.importorskip("embreex", reason="the extra three-d is not installed")
    from latentdem.three_d.synthetic.render import on_white, render
    from latentdem.three_d.synthetic.scenes import HELD_OUT, random_scene

    prior, pair = EmbeddedViewPrior.from_pretrained(), (torch.zeros(8, dtype=torch.long), torch.ones(8).long())
    right = 0
    for seed in range(6):
        cameras = torch.tensor([[1.1, 0.0, RADIUS], [1.3, 1.2, RADIUS]])
        views = torch.from_numpy(on_white(render(random_scene(HELD_OUT + 8100 + seed), cameras)))
        x = views.movedim(-1, 1) / 127.5 - 1
        sets = (cameras - torch.tensor([0.0, 0.0, RADIUS])).repeat(8, 1, 1)
        sets[:, 1, 1] += torch.arange(8) * math.tau / 8
        error = PairError(prior, prior.condition(x), prior.encode(x))
        right += int(error.scores(*pair, sets).argmax() == 0)
    assert right >= 5


@pytest.mark.parametrize("name", ["network", "autoencoder", "framing", "pose_scorer", "occupancy"])
def test_weights_are_finite(name):
    from safetensors.torch import load_file

    for key, value in load_file(EMBEDDED_3D_WEIGHTS / name / "diffusion_pytorch_model.safetensors").items():
        assert torch.isfinite(value).all(), key
