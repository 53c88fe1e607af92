from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.priors import EmbeddedPrior
from latentdem.solver.frame import Frame
from latentdem.solver.gibbs_ddrm import GibbsDDRM
from latentdem.solver.measurement import Measurement
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]
SIGMA = 0.02
FIRST = gaussian_kernel(9, 1.5)


class Pixels:
    """An oracle whose latents are pixels."""

    def __init__(self, oracle: Any) -> None:
        self.oracle, self.alphas_cumprod = oracle, oracle.alphas_cumprod

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width

    def encode(self, x: Tensor) -> Tensor:
        raise AssertionError("pixels need no encoder")

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        return z

    def predict_noise(self, z_t: Tensor, t: int) -> Tensor:
        return torch.nn.functional.pixel_shuffle(
            self.oracle.predict_noise(torch.nn.functional.pixel_unshuffle(z_t, 2), t), 2
        )


def measured(sharp: Tensor, kernel: Tensor) -> Measurement:
    noise = SIGMA * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(1))
    return Measurement(ext.blur(sharp, kernel) + noise, torch.full((len(sharp),), SIGMA))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("pixels", [False, True], ids=["latents", "pixels"])
def test_the_kernel_is_found_with_a_prior_that_knows_the_image(scene: Scene, oracle: Any, pixels: bool) -> None:
    sharp, kernel = scene(32, 32), motion_kernels(1, 9, 0.5, 0)
    prior = Pixels(oracle(sharp)) if pixels else oracle(sharp)
    image, found = GibbsDDRM()(prior, measured(sharp, kernel), FIRST, generator=seeded(), steps=6)
    assert kernel_metrics(found, kernel).mnc > 0.95 > kernel_metrics(FIRST, kernel).mnc
    assert (image - sharp).abs().max() < 0.02
    assert found.min() >= 0


def test_the_kernel_waits_for_its_timestep(scene: Scene, oracle: Any) -> None:
    sharp, kernel = scene(32, 32), motion_kernels(1, 9, 0.5, 0)
    trace: list[TraceStep] = []
    method = GibbsDDRM(updates=1, langevin=20, kernel_from=500)
    method(oracle(sharp), measured(sharp, kernel), FIRST, generator=seeded(), steps=10, on_step=trace.append)
    assert [step.t for step in trace] == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    changed = [not torch.equal(step.parameters, FIRST) for step in trace]
    assert changed == [False] * 5 + [True] * 5
    last, before = trace[-1].parameters, trace[-2].parameters
    assert torch.equal(last, before)  # no image follows that a kernel could be drawn from


def test_a_batch_gives_what_single_images_give(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    sharp = torch.cat([scene(32, 32), scene(32, 32, seed=1)])
    whole = measured(sharp, motion_kernels(2, 9, 0.5, 0))
    method = GibbsDDRM(updates=1, langevin=20)
    together = method(tiny_prior, whole, FIRST.repeat(2, 1, 1, 1), generator=seeded(), steps=4)
    for i in range(2):
        alone = method(tiny_prior, whole.rows(slice(i, i + 1)), FIRST, generator=seeded(), steps=4)
        for mine, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(mine[i : i + 1], theirs, rtol=1e-3, atol=1e-3)


def test_pixels_beyond_the_frame_do_not_count(scene: Scene, oracle: Any) -> None:
    """The kernel is found although the blur does not wrap around."""
    frame, kernel = Frame.extended(40, 40, 9), motion_kernels(1, 9, 0.5, 0)
    sharp = scene(*frame.grid)
    seen = frame.crop(measured(sharp, kernel).y)
    measurement = frame.extend(Measurement(seen, torch.tensor([SIGMA]), circular=False))
    _, found = GibbsDDRM()(oracle(sharp), measurement, FIRST, generator=seeded(), steps=6)
    assert kernel_metrics(found, kernel).mnc > 0.95
