"""Photographs whose light was blurred before the tone curve of a camera."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem import Result, Settings
from latentdem.io.images import read_image
from latentdem.metrics import psnr
from latentdem.operators import StridedBlur, ToneCurve
from latentdem.operators.kernels import gaussian_kernel, motion_kernel
from latentdem.output.report import build_report
from latentdem.priors import EmbeddedPrior, load_prior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.restoration.examination import Examination
from latentdem.restoration.image import ImageRestoration
from latentdem.restoration.recording import Recording

Scene = Callable[..., Tensor]
SHARP = Path(__file__).resolve().parents[3] / "examples" / "sharp.png"
KERNEL = gaussian_kernel(9, 1.6)


def blurred(sharp: Tensor) -> Tensor:
    curve = ToneCurve()
    return curve.values(ext.blur(curve.light(sharp), KERNEL))


def run(y: Tensor, prior: EmbeddedPrior, kernel: Tensor | None, gamma: float | str) -> Result:
    settings = Settings(9, 0.004, steps=4, boundary="circular", quality="fast", gamma=gamma)
    denoiser = KernelDenoiser().requires_grad_(False)
    return ImageRestoration(y, settings, kernel).run(prior, denoiser, torch.device("cpu"))


def test_the_right_curve_restores_more() -> None:
    sharp, prior = read_image(SHARP).pixels[..., 80:176, 80:176], load_prior("embedded", torch.device("cpu"))
    right, wrong = (run(blurred(sharp), prior, KERNEL, gamma) for gamma in ("srgb", 1))
    assert psnr(right.tensor, sharp) > psnr(wrong.tensor, sharp) + 2
    torch.testing.assert_close(right.noise_sigma, torch.tensor([0.004]))  # in units of the values
    assert build_report(right)["settings"]["gamma"] == "srgb"


@pytest.mark.parametrize("known", [True, False])
def test_auto_finds_whether_values_or_light_were_blurred(known: bool) -> None:
    sharp, kernel = (
        read_image(SHARP).pixels[..., 40:200, 40:200],
        motion_kernel(15, 0.5, np.random.default_rng(5)),
    )
    curve, settings = ToneCurve(), Settings(15, 0.004, boundary="circular", gamma="auto")
    for y, gamma in (
        (curve.values(ext.blur(curve.light(sharp), kernel)), "srgb"),
        (ext.blur(sharp, kernel), 1.0),
    ):
        recording = Recording.of(Examination.none(y), settings, True, kernel=kernel if known else None)
        assert recording.gamma == gamma


def test_auto_takes_one_photograph(scene: Scene) -> None:
    with pytest.raises(latentdem.UserError, match="one photograph at a time"):
        Recording.of(Examination.none(scene(32, 32).repeat(2, 1, 1, 1)), Settings(9, gamma="auto"), True)


def test_a_curve_and_another_operator_are_refused(scene: Scene) -> None:
    with pytest.raises(latentdem.UserError, match="belongs to the operator 'blur'"):
        ImageRestoration(scene(32, 32), Settings(9, gamma=2.2), operator=StridedBlur)


def test_the_kernel_is_searched_in_linear_light(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    result = run(blurred(scene(48, 56)), tiny_prior, None, "srgb")
    assert result.tensor.abs().max() <= 1
    assert result.kernel.sum() == pytest.approx(1, abs=1e-4)
    assert result.unexplained is not None


def test_deblur_takes_a_curve_and_refuses_others(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    options = {"kernel": KERNEL, "prior": tiny_prior, "steps": 2, "device": "cpu"}
    as_values = latentdem.deblur(scene(20, 24), **options)
    assert torch.equal(latentdem.deblur(scene(20, 24), gamma=1, **options).tensor, as_values.tensor)
    assert not torch.equal(latentdem.deblur(scene(20, 24), gamma=2.2, **options).tensor, as_values.tensor)
    with pytest.raises(latentdem.UserError, match="Unknown tone curve 'linear'"):
        latentdem.deblur(scene(20, 24), gamma="linear", **options)
