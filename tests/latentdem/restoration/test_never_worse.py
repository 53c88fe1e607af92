"""Restorations with a known kernel against their inputs, over noise levels, kernels and boundaries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem.operators.kernels import motion_kernels

CASES = 50
# Among the least gains of the 50, with given and estimated noise, with and without a periodic boundary.
SAMPLE = [3, 12, 21, 31, 35, 38]


def psnr(image: Tensor, truth: Tensor) -> float:
    return 10 * math.log10(4 / float((image - truth).square().mean()))


def gain(seed: int) -> float:
    """Gain in dB for a random part of a photograph of 48 to 64 pixels and a random motion kernel."""
    random = np.random.default_rng(seed)
    height, width = (int(n) for n in random.integers(48, 65, 2))
    size = int(random.integers(3, 16))
    sigma = float(np.exp(random.uniform(np.log(0.0005), np.log(0.2))))
    circular, given = bool(random.integers(2)), bool(random.integers(2))
    name = ("astronaut", "chelsea", "coffee", "camera")[int(random.integers(4))]
    photograph = torch.from_numpy(np.array(getattr(data, name)())).float() / 127.5 - 1
    photograph = photograph if photograph.ndim == 3 else photograph[..., None]
    corner = [
        int(random.integers(0, whole - 2 * (side + 2 * size)))
        for whole, side in zip(photograph.shape[:2], (height, width), strict=True)
    ]
    margin = 0 if circular else size
    rows, columns = (
        slice(first, first + 2 * (side + 2 * margin), 2)
        for first, side in zip(corner, (height, width), strict=True)
    )
    x = photograph[rows, columns].movedim(-1, 0)[None].contiguous()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kernel = motion_kernels(1, size, 0.5, seed)
        noise = sigma * torch.randn(x.shape)
    inside = slice(margin, -margin or None)
    y, x = ((ext.blur(x, kernel) + noise)[..., inside, inside], x[..., inside, inside])
    result = latentdem.deblur(
        y,
        kernel=kernel,
        noise_sigma=sigma if given else None,
        boundary="circular" if circular else "valid",
        steps=6,
        device="cpu",
    )
    return psnr(result.image, x) - psnr(y.clamp(-1, 1), x)


@pytest.mark.parametrize("seed", SAMPLE)
def test_a_known_kernel_never_makes_a_photograph_worse(seed: int) -> None:
    assert gain(seed) > 0.3


@pytest.mark.slow
def test_no_noise_level_and_no_boundary_makes_a_photograph_worse() -> None:
    gains = [gain(seed) for seed in range(CASES)]
    print(f"gains from {min(gains):.2f} (case {int(np.argmin(gains))}) to {max(gains):.2f} dB")
    assert min(gains) > 0.3  # 1.0 when this was written
