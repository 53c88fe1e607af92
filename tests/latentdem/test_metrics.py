from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentdem import metrics
from latentdem.metrics import best_shift, image_metrics, kernel_metrics, lpips_available, psnr, ssim
from latentdem.operators.kernels import delta_kernel, gaussian_kernel, motion_kernel

Scene = Callable[..., Tensor]


def test_psnr_of_a_constant_error(scene: Scene) -> None:
    x = scene() * 0.5
    # 0.2 of [-1, 1] is 0.1 of [0, 1]: 20 log10(1 / 0.1) = 20 dB.
    assert psnr(x + 0.2, x) == pytest.approx(20, abs=1e-4)
    assert psnr(x, x) == math.inf


def test_images_are_compared_clipped(scene: Scene) -> None:
    x = scene().sign()
    assert psnr(3 * x, x) == math.inf


def test_ssim_known_values(scene: Scene) -> None:
    x = scene()
    assert ssim(x, x) == pytest.approx(1)
    # Two constants a, b have SSIM (2ab + C1) / (a^2 + b^2 + C1), C1 = 0.01^2.
    a, b = 0.25, 0.5
    flat = torch.ones(1, 1, 32, 32)
    expected = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
    assert ssim(flat * (2 * a - 1), flat * (2 * b - 1)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shift_is_found_and_undone(scene: Scene, shift: tuple[int, int], channels: int) -> None:
    reference = scene(channels=channels)
    moved = reference.roll((-shift[0], -shift[1]), dims=(-2, -1)) * 0.9 + 0.02
    assert best_shift(moved, reference) == shift
    result = image_metrics(moved, reference)
    assert result.shift == shift
    assert result.psnr_aligned > 25
    assert result.ssim_aligned > 0.9
    if shift != (0, 0):
        assert result.psnr < 15


def test_shift_agrees_with_trying_all(scene: Scene) -> None:
    reference = scene(30, 33)
    image = (0.4 * reference.roll((2, 1), dims=(-2, -1)) + 0.6 * scene(30, 33, seed=1)).clamp(-1, 1)
    radius = 4
    inner = (..., slice(radius, 30 - radius), slice(radius, 33 - radius))
    tried = {
        (dy, dx): psnr(image.roll((dy, dx), dims=(-2, -1))[inner], reference[inner])
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
    }
    assert best_shift(image, reference, radius) == max(tried, key=lambda s: tried[s])


def test_half_a_pixel_is_undone_too(scene: Scene) -> None:
    image = scene(48, 52)
    reference = (image + image.roll(1, -1)) / 2  # half a pixel to the right of the image
    result = image_metrics(image, reference)
    assert result.shift == (0, 0.5)
    assert result.psnr_aligned > 100


def test_wrapped_pixels_do_not_count(scene: Scene) -> None:
    reference = scene(48, 48)
    window = torch.nn.functional.pad(reference[..., 4:, :], (0, 0, 0, 4))  # shifted, but nothing wraps
    result = image_metrics(window, reference)
    assert result.shift == (4, 0)
    assert result.psnr_aligned == math.inf


def test_constant_images_and_small_images() -> None:
    flat = torch.zeros(1, 1, 20, 20)
    assert best_shift(flat, flat) == (0, 0)
    assert image_metrics(flat[..., :16, :16] + 0.1, flat[..., :16, :16]).ssim_aligned > 0.5


@pytest.mark.parametrize("size", [16, 33])
def test_kernels_equal_up_to_a_shift_are_equal(size: int) -> None:
    kernel = torch.zeros(1, 1, size, size)
    kernel[..., 4:9, 3:7] = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    moved = kernel.roll((5, -2), dims=(-2, -1)) * 0.3
    result = kernel_metrics(moved, kernel)
    assert result.mnc == pytest.approx(1, abs=1e-6)
    assert result.mse == pytest.approx(0, abs=1e-9)


def test_kernels_of_different_size() -> None:
    small = gaussian_kernel(17, 2.0)
    large = torch.nn.functional.pad(small, (5, 3, 1, 7))
    assert kernel_metrics(large, small).mnc == pytest.approx(1, abs=1e-6)
    assert kernel_metrics(small, large).mse == pytest.approx(0, abs=1e-9)


def test_kernel_metrics_computed_by_hand() -> None:
    # A delta against two equal neighbours: overlap 1 of norms 1 and sqrt 2, one wrong pixel of 25.
    pair = torch.zeros(5, 5)
    pair[2, 1:3] = 0.5
    result = kernel_metrics(delta_kernel(5), pair)
    assert result.mnc == pytest.approx(1 / math.sqrt(2))
    assert result.mse == pytest.approx(1 / 25)


def test_mse_is_on_the_scale_of_the_paper() -> None:
    kernels = [motion_kernel(64, 0.5, np.random.default_rng(seed)) for seed in range(6)]
    assert 0.003 < float(np.mean([kernel_metrics(a, b).mse for a, b in pairwise(kernels)])) < 0.03


def test_lpips_needs_its_packages(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert lpips_available() == (False, "the package lpips is not installed")
    assert image_metrics(scene(), scene()).lpips is None


@pytest.fixture
def installed_lpips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand-ins for lpips and torchvision; returns where the weights would be."""

    class Network(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            assert a.shape == b.shape
            assert a.shape[:2] == (1, 3)
            return (a - b).abs().mean()

    url = "https://example.org/models/alexnet-0.pth"
    weights = types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(url=url))
    models = types.ModuleType("torchvision.models")
    vars(models)["AlexNet_Weights"] = weights
    package = types.ModuleType("lpips")
    vars(package)["LPIPS"] = Network
    for name, module in {
        "lpips": package,
        "torchvision": types.ModuleType("torchvision"),
        "torchvision.models": models,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(metrics, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metrics._lpips_network.cache_clear()
    return tmp_path / "checkpoints" / "alexnet-0.pth"


def test_lpips_never_downloads(installed_lpips: Path, scene: Scene) -> None:
    available, reason = lpips_available()
    assert not available
    assert str(installed_lpips) in reason
    assert metrics.lpips(scene(), scene()) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_measured_where_installed(installed_lpips: Path, scene: Scene, channels: int) -> None:
    installed_lpips.parent.mkdir()
    installed_lpips.touch()
    x = scene(64, 64, channels) * 0.5
    result = image_metrics(x + 0.1, x)
    assert result.lpips == pytest.approx(0.1, abs=1e-6)
    assert result.lpips_aligned == pytest.approx(0.1, abs=1e-6)
    assert metrics.lpips(x[..., :20, :20], x[..., :20, :20]) is None
