"""Photographs with one blur: their kernel is found from all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from skimage import data
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem.errors import UserError
from latentdem.io.images import write_image
from latentdem.metrics import kernel_metrics
from latentdem.operators import HQS, Blur, SharedBlur
from latentdem.operators.kernels import motion_kernels
from latentdem.restoration.settings import Settings
from latentdem.search.gradient_refine import kernels_from_images
from latentdem.search.gradient_start import shared_starts, starts_for
from latentdem.solver.measurement import Measurement

Scene = Callable[..., Tensor]


@pytest.fixture(scope="module")
def kernel() -> Tensor:
    """(1, 1, 9, 9)."""
    return motion_kernels(1, 9, 0.5, seed=1)


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """(2, 3, 96, 96), sharp: one with many edges, one with few."""
    camera = torch.from_numpy(data.camera()).float() / 127.5 - 1
    parts = [camera[100:292:2, 180:372:2], camera[0:192:2, 0:192:2]]
    return torch.stack(parts)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture(scope="module")
def measurement(photographs: Tensor, kernel: Tensor) -> Measurement:
    noise = torch.randn(photographs.shape, generator=torch.Generator().manual_seed(0))
    y = ext.blur(photographs, kernel.expand(2, -1, -1, -1).contiguous()) + 0.01 * noise
    return Measurement(y, torch.full((2,), 0.01), None, True)


def test_least_squares_are_summed(photographs: Tensor, measurement: Measurement, kernel: Tensor) -> None:
    alone = kernels_from_images(measurement, photographs, 9)
    shared = kernels_from_images(measurement, photographs, 9, shared=True)
    torch.testing.assert_close(shared[0], shared[1])
    scores = [kernel_metrics(one, kernel).mnc for one in (*alone, shared[0])]
    assert scores[2] > min(scores[:2])
    twice = Measurement(measurement.y[:1].repeat(2, 1, 1, 1), measurement.sigma, None, True)
    same = kernels_from_images(twice, photographs[:1].repeat(2, 1, 1, 1), 9, shared=True)
    torch.testing.assert_close(same[0], alone[0], atol=1e-4, rtol=0)


def test_hypotheses_are_summed_each_with_its_own(photographs: Tensor, measurement: Measurement) -> None:
    two = torch.stack([photographs, photographs.flip(-1)], 1).flatten(0, 1)  # of each photograph
    together = kernels_from_images(measurement, two, 9, shared=True)
    first = kernels_from_images(measurement, photographs, 9, shared=True)
    torch.testing.assert_close(together[::2], first, atol=1e-5, rtol=0)


def test_candidates_of_all_are_judged_on_all(measurement: Measurement, kernel: Tensor) -> None:
    starts = starts_for(measurement, 9, (9,))
    shared = shared_starts(starts, measurement, 3)
    assert shared.kernels.shape[:2] == shared.scores.shape
    assert shared.kernels.shape[1] <= 3
    torch.testing.assert_close(shared.kernels[0], shared.kernels[1])
    assert (shared.scores.diff(dim=1) >= 0).all()
    firsts = [kernel_metrics(one[0], kernel).mnc for one in starts.kernels]
    assert kernel_metrics(shared.kernels[0, 0], kernel).mnc >= min(firsts)


def test_the_m_step_takes_the_images_as_channels(photographs: Tensor, measurement: Measurement) -> None:
    hqs, start = HQS(3, 1e5, noise_level=torch.tensor([0.05, 0.05])), torch.full((2, 1, 9, 9), 1 / 81)
    samples, variance = photographs[:, None], torch.full((2,), 1e-4)
    mask = torch.ones(1, 1, 96, 96)
    mask[..., 40:50, 40:50] = 0
    for counts in (None, mask):
        shared = SharedBlur(9, lambda k, level: k, hqs, counts).m_step(samples, measurement.y, start, variance)
        torch.testing.assert_close(shared[0], shared[1])
        channels = samples.transpose(0, 1).flatten(1, 2)[None]
        stacked = measurement.y.flatten(0, 1)[None]
        plain = Blur(9, None, hqs, counts).m_step(channels, stacked, start[:1], variance[:1])
        torch.testing.assert_close(shared[:1], plain)


def test_every_photograph_gets_the_same_kernel(measurement: Measurement, tiny_prior: Any) -> None:
    """The whole way, for data that need EM, too (noise above 0.01), in small windows."""
    result = latentdem.deblur(
        measurement.y[..., :64, :64].clamp(-1, 1),
        kernel_size=9,
        noise_sigma=0.02,
        same_kernel=True,
        quality="fast",
        prior=tiny_prior,
        device="cpu",
        boundary="valid",
    )
    torch.testing.assert_close(result.kernel[0], result.kernel[1])
    assert not torch.equal(result.tensor[0], result.tensor[1])
    assert result.lead is not None
    assert result.settings["same_kernel"]


def test_other_choices_are_refused(scene: Scene, kernel: Tensor) -> None:
    with pytest.raises(UserError, match="tone curve of 1"):
        Settings(same_kernel=True, gamma="srgb")
    with pytest.raises(UserError, match="uniform blur"):
        Settings(same_kernel=True, blur="varying")
    with pytest.raises(UserError, match="needs no search for a common one"):
        latentdem.deblur(torch.cat([scene(), scene()]), kernel=kernel, same_kernel=True)


def test_the_command_restores_all_at_once(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        write_image(Path(f"{i}.png"), scene(seed=i))
    cli.run("deblur", "0.png", "1.png", "2.png", "--same-kernel")
    assert len(fake_deblur.calls) == 1
    assert len(fake_deblur.calls[0]["image"]) == 3
    assert fake_deblur.calls[0]["same_kernel"]
    assert "two or more" in cli.sentence("deblur", "0.png", "--same-kernel")
    arguments = ("deblur", "0.png", "1.png", "--same-kernel")
    assert "some are left out" in cli.sentence(*arguments, "--skip-existing")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "in one process; leave out torchrun" in cli.sentence(*arguments)
    monkeypatch.delenv("WORLD_SIZE")
    write_image(Path("1.png"), scene(48, 40))
    sentence = cli.sentence("deblur", "0.png", "1.png", "--same-kernel", "--overwrite")
    assert sentence.endswith("0.png is 48 x 40 RGB and 1.png 40 x 48 RGB.")
