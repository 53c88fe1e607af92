"""Tiles of a photograph with the shipped prior: they lose next to nothing, and their seams do not show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F

import latentdem
from latentdem.io.images import read_image
from latentdem.metrics import psnr
from latentdem.operators.kernels import gaussian_kernel
from latentdem.operators.simulate import blur_and_add_noise
from latentdem.search import layout

EXAMPLE = Path(__file__).parents[3] / "examples" / "sharp.png"


def test_a_photograph_in_tiles_is_as_good_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sharp = F.interpolate(read_image(EXAMPLE).pixels, (480, 480), mode="bicubic").clamp(-1, 1)
    kernel = gaussian_kernel(9, 1.5)
    y, sharp = blur_and_add_noise(sharp, kernel, 0.01, np.random.default_rng(0), "valid")
    results = []
    for size, most in ((640, 640), (64, 320)):
        monkeypatch.setattr(layout, "WORKING_SIZE", size)
        monkeypatch.setattr(layout, "TILE_SIZE", most)
        plan = layout.Layout(*y.shape[-2:], kernel.shape[-1], circular=False)
        assert plan.fits == (size == 640)
        results.append(
            latentdem.deblur(
                y, kernel=kernel, noise_sigma=0.01, boundary="valid", value_range=(-1, 1), quality="fast"
            ).tensor
        )
    whole, tiled = results
    assert psnr(tiled, sharp) > psnr(whole, sharp) - 0.05
    # Beside the sides of tiles, steps between pixels are no larger than elsewhere.
    extra = (tiled - whole).diff(dim=-1).square().mean((0, 1, 2))
    windows = layout.tile_windows(*y.shape[-2:], plan.tile_size, plan.overlap)
    ends = {end - 1 for _, columns in windows for end in (columns.start, columns.stop)}
    inside = sorted(ends & set(range(len(extra))))
    assert len(inside) == 2
    assert extra[inside].mean() < 2 * extra.mean()
