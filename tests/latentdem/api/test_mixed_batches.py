"""Batches of all kinds against the same photographs one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentdem
from latentdem.operators.kernels import motion_kernels
from latentdem.priors import EmbeddedPrior

Scene = Callable[..., Tensor]


def drawn(seed: int, scene: Scene) -> tuple[Tensor, Tensor | None, dict[str, Any]]:
    """A batch, its kernels where they are given, and options."""
    generator = np.random.default_rng(seed)
    count, (height, width) = int(generator.integers(2, 5)), generator.integers(18, 34, 2).tolist()
    channels = int(generator.choice([1, 3]))
    noise = torch.Generator().manual_seed(seed)
    y = torch.cat([scene(height, width, channels, seed=10 * seed + i) for i in range(count)])
    y += torch.randn(y.shape, generator=noise) * torch.linspace(0.01, 0.05, count).view(-1, 1, 1, 1)
    options = {
        "steps": int(generator.integers(2, 5)),
        "boundary": str(generator.choice(["valid", "circular"])),
        "noise_sigma": None if generator.uniform() < 0.5 else 0.03,
        "seed": seed,
        "device": "cpu",
    }
    if seed % 2:
        kernels = motion_kernels(count, 7, 0.5, seed)
        return y, kernels, {**options, "e_step": str(generator.choice(["proximal", "posterior"]))}
    return y[:2], None, {**options, "steps": 2, "kernel_size": int(generator.choice([3, 5, 9]))}


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=() if seed % 2 or seed == 2 else pytest.mark.slow) for seed in range(20)],
)
def test_mixed_batches_give_what_single_photographs_give(
    scene: Scene, tiny_prior: EmbeddedPrior, seed: int
) -> None:
    y, kernels, options = drawn(seed, scene)
    together = latentdem.deblur(y, kernel=kernels, prior=tiny_prior, **options)
    assert together.image.shape == y.shape
    for i in range(len(y)):
        kernel = None if kernels is None else kernels[i : i + 1]
        alone = latentdem.deblur(y[i : i + 1], kernel=kernel, prior=tiny_prior, **options)
        assert torch.equal(together.noise_sigma[i : i + 1], alone.noise_sigma)
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=0, atol=1e-3)
        torch.testing.assert_close(together.kernel[i : i + 1], alone.kernel, rtol=1e-3, atol=1e-3)
