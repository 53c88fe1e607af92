"""Kernels, losses and commands of the training of the network that corrects kernels."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import gaussian_kernel, motion_kernel

SHARP = Path(__file__).resolve().parents[2] / "examples" / "sharp.png"


@pytest.mark.parametrize("size", [15, 33])
def test_camera_kernels_are_centred_kernels(train_kernel_refiner: ModuleType, size: int) -> None:
    generator, offsets = np.random.default_rng(0), np.arange(size) - size // 2
    for _ in range(8):
        kernel = train_kernel_refiner.camera_kernel(size, generator)
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        for axis in (0, 1):  # exactly centred but for what the frame cut off
            assert abs(kernel.sum(axis) @ offsets) < size / 10


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.25, -2.5), (-3.0, 0.75)])
def test_the_truth_is_moved_to_the_estimate(
    train_kernel_refiner: ModuleType, shift: tuple[float, float]
) -> None:
    rows, columns = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(21.0) - 10, indexing="ij")

    def kernel(down: float, right: float) -> Tensor:
        value = torch.exp(-((rows - down) ** 2 / 8 + (columns - right) ** 2 / 3))
        return (value / value.sum())[None, None]

    moved = train_kernel_refiner.shifted_to(kernel(0, 0), kernel(*shift))
    torch.testing.assert_close(moved, kernel(*shift), atol=1e-4, rtol=0)


def test_decibels_lost_are_those_of_a_wiener_filter(train_kernel_refiner: ModuleType) -> None:
    """Against the mean error of restorations of random images of that spectrum."""
    truth = motion_kernel(9, 0.5, np.random.default_rng(2))
    estimate, sigma, side = gaussian_kernel(9, 2.0), 0.02, 14
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.fft.fftfreq(side, dtype=torch.double)[:, None], torch.fft.rfftfreq(side).double()
    spectrum = 1 / (rows.square() + columns.square()).clamp_min(256**-2)
    spectrum = 0.05 * spectrum / spectrum.mean()
    noise, model_error = sigma / 2, 0.004
    variance = noise**2 + model_error**2
    white = torch.randn(2, 6000, side, side, generator=generator, dtype=torch.double)
    x, n = torch.fft.rfft2(white[0]) * spectrum.sqrt(), torch.fft.rfft2(white[1]) * variance**0.5
    blur = torch.fft.rfft2(truth[0, 0].double(), s=(side, side))
    errors = []
    for kernel in (estimate, truth):
        otf = torch.fft.rfft2(kernel[0, 0].double(), s=(side, side))
        restored = (blur * x + n) * otf.conj() / (otf.abs().square() + variance / spectrum)
        errors.append(torch.fft.irfft2(restored - x, s=(side, side)).square().mean())
    expected = 10 * torch.log10(errors[0] / errors[1])
    found = train_kernel_refiner.decibels_lost(estimate, truth, torch.tensor([sigma]))
    assert float(found) == pytest.approx(float(expected), abs=0.15)
    assert float(train_kernel_refiner.decibels_lost(truth, truth, torch.tensor([sigma]))) == 0


@pytest.mark.slow
def test_every_command_runs(train_kernel_refiner: ModuleType, tmp_path: Path) -> None:
    photographs, out, monkey = tmp_path / "photographs", tmp_path / "out", pytest.MonkeyPatch()
    photographs.mkdir()
    shutil.copy(SHARP, photographs)
    monkey.setattr(train_kernel_refiner, "PART", 1)
    (out / "estimates").mkdir(parents=True)
    for part in range(2):
        train_kernel_refiner.draw_part(part, [SHARP], out / "estimates")
    runner = CliRunner()
    for arguments in (
        ["estimates", str(photographs), "--out", str(out), "--count", "2"],
        ["train", "--out", str(out), "--steps", "2", "--pixels", "1000"],
        ["export", "--out", str(out), "--weights", str(tmp_path / "weights")],
        ["evaluate", "--out", str(out), "--weights", str(tmp_path / "weights")],
    ):
        result = runner.invoke(train_kernel_refiner.app, arguments)
        assert result.exit_code == 0, result.output
    monkey.undo()
    assert "improved" in result.output


def test_the_shipped_network_helps_estimates_from_a_photograph(train_kernel_refiner: ModuleType) -> None:
    generator, before, after = np.random.default_rng(1), 0.0, 0.0
    model = train_kernel_refiner.load_kernel_refiner()
    for _ in range(3):
        y, kernel, sigma = train_kernel_refiner.blurred_photograph(SHARP, generator)
        assert y.shape[-1] == 257 - kernel.shape[-1]  # of a photograph of 256 x 256 pixels
        estimates, truth = train_kernel_refiner.estimated_kernels(y, kernel, sigma, generator)
        assert estimates.shape == (6, 1, *truth.shape[-2:])
        assert max(kernel_metrics(one, kernel).mnc for one in estimates) > 0.7
        levels = torch.full((6,), sigma)
        truth = train_kernel_refiner.shifted_to(truth.expand_as(estimates), estimates)
        before += float(train_kernel_refiner.decibels_lost(estimates, truth, levels).mean())
        after += float(
            train_kernel_refiner.decibels_lost(model.refined(estimates, levels), truth, levels).mean()
        )
    assert after < 0.95 * before
