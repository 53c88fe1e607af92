"""The view-conditioned prior that ships, on the example pictures of an object that it has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentdem.metrics import psnr
from latentdem.three_d import reconstruct
from latentdem.three_d.embedded_view_prior import EMBEDDED_3D_WEIGHTS
from latentdem.three_d.measures import pose_error

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
CAMERAS = torch.tensor(
    [[1.15, 0.4, 1.6], [1.25, 2.4, 1.6]]
)  # of the first two pictures, see examples/README.md


def test_pose_of_the_example_is_found():
    pictures = [EXAMPLES / f"chair_{i}.png" for i in (1, 2)]
    result = reconstruct(pictures, azimuths=4, steps=4)
    error = pose_error(CAMERAS[0] + result.poses, CAMERAS)
    assert float(error[1]) < 20
    assert float(result.confidence[1]) > 0.9
    # The first of the new views is from the camera of the first picture.
    first = psnr(result.views[0], result.inputs[0])
    assert first > 18
    assert first > psnr(result.views[2], result.inputs[0]) + 3


@pytest.mark.slow
def test_poses_of_six_pictures_are_found():
    """Of an object whose front and back look alike, neither centred nor scaled."""
    pytest.importorskip("embreex")
    from latentdem.three_d.render import on_white, render
    from latentdem.three_d.scenes import HELD_OUT, random_scene

    generator = torch.Generator().manual_seed(1)
    polar, azimuth = 1 + 0.5 * torch.rand(6, generator=generator), 6.28 * torch.rand(6, generator=generator)
    cameras = torch.stack([polar, azimuth, torch.full((6,), 1.6)], 1)
    views = (
        torch.from_numpy(on_white(render(random_scene(HELD_OUT + 7000), cameras))).movedim(-1, 1) / 127.5 - 1
    )
    result = reconstruct(views, azimuths=1, steps=2)
    error = pose_error(cameras[:1] + result.poses, cameras)[1:]
    assert float(error.max()) < 20
    assert float(error.median()) < 10


def test_weights_are_small():
    files = list(EMBEDDED_3D_WEIGHTS.rglob("*.safetensors"))
    assert len(files) == 2
    assert sum(file.stat().st_size for file in files) < 24e6
    assert sum(file.stat().st_size for file in EMBEDDED_3D_WEIGHTS.parent.rglob("*.safetensors")) < 60e6


@pytest.mark.parametrize("name", ["network", "autoencoder"])
def test_weights_are_finite(name):
    from safetensors.torch import load_file

    for key, value in load_file(EMBEDDED_3D_WEIGHTS / name / "diffusion_pytorch_model.safetensors").items():
        assert torch.isfinite(value).all(), key
