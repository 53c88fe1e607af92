"""What every sampler here draws and looks up: noise that does not depend on the batch, and the schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..priors.base import LatentPrior


def unit_noise(shape: torch.Size, generator: torch.Generator, like: Tensor, own: int = 1) -> Tensor:
    """Unit noise of `shape` (N, ...), the same for every image: a batch gives what single runs give.

    Args:
        shape: N is a multiple of `own`.
        generator: where it comes from, on the device of `like`.
        like: a tensor of the device and dtype wanted.
        own: consecutive entries that belong to one image, which have noise of their own.
    """
    noise = torch.randn((own, *shape[1:]), generator=generator, device=like.device, dtype=like.dtype)
    return noise.repeat(shape[0] // own, 1, 1, 1)


def cumulative_alpha(prior: LatentPrior, t: int, count: int, like: Tensor) -> Tensor:
    """abar_t (count,) on the device and in the dtype of `like`; 1 for t = -1, after the last step."""
    value = 1.0 if t < 0 else float(prior.alphas_cumprod[t])
    return torch.full((count,), value, device=like.device, dtype=like.dtype)


def alpha_table(prior: LatentPrior, times: Sequence[int], count: int, like: Tensor) -> Tensor:
    """abar_t (T, count) for `times`, as `cumulative_alpha` gives each, made before a run and copied once."""
    alphas = prior.alphas_cumprod.cpu()
    values = torch.tensor([1.0 if t < 0 else float(alphas[t]) for t in times], dtype=like.dtype)
    return values[:, None].repeat(1, count).to(like.device)
