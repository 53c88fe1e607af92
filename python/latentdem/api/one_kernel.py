"""Restorations with an operator that is one kernel and a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..operators import AntiAliasing, Blur, DiskKernels, GaussianKernels, KernelFamily, Saturation, StridedBlur
from ..output.result import Restored
from ..priors import LatentPrior
from ..priors.kernel_denoiser import load_kernel_denoiser
from ..restoration.boundary import looks_circular
from ..restoration.image import ImageRestoration
from ..restoration.noise import estimate_noise_sigma
from ..restoration.settings import Settings
from ..solver.checkpoint import Checkpoint
from ..solver.passes import Progress

_FAMILIES: dict[str, KernelFamily] = {
    "gaussian": GaussianKernels(),
    "disk": DiskKernels(),
}
ONE_KERNEL = {"blur", "saturation", "superresolution", *_FAMILIES}


def restore_one_kernel(
    name: str,
    y: Tensor,
    options: dict[str, Any],
    known: dict[str, Any],
    settings: Settings,
    prior: LatentPrior,
    device: torch.device,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> Restored:
    """Operators that are one kernel and a mask: restorations as those of `deblur`."""
    family, factor = _FAMILIES.get(name), options.get("factor", 1)
    size = options.get("size", 6 * factor if factor % 2 == 0 else 25)
    mask, grid, sigma = None, y, None
    operator: Callable[..., Blur] = Blur
    if name == "saturation":
        mask = Saturation().measured(y)
        if not mask.flatten(1).any(1).all():
            raise UserError("Every pixel is clipped to black or white; give an image that is not.")
        sigma = noise_of(y, settings) / options["exposure"]
        grid = (y + 1) / options["exposure"] - 1
    if name == "superresolution":
        if settings.boundary == "auto":
            settings = replace(settings, boundary="circular" if looks_circular(y) else "valid")
        sigma = noise_of(y, settings)
        grid, mask = spread(y, factor)
        operator, family = partial(StridedBlur, stride=factor), AntiAliasing(factor)
    kernel, values = known.get("kernel"), None
    if family is not None and known:
        for key in family.names if name in _FAMILIES else ():
            if known[key] > family.most(size):
                raise UserError(
                    f"A kernel of {size} x {size} pixels has no room for the {key} {known[key]:g}; "
                    f"give a larger size, as {name}:size=N."
                )
        values = torch.tensor([[known[key] for key in family.names]])
        kernel = family.kernel(values, size)
    settings = replace(settings, kernel_size=size)
    # No model includes lights beyond the range of the result.
    restoration = ImageRestoration(
        grid, settings, kernel, mask, operator, cautious=name == "saturation", examine=mask is None, sigma=sigma
    )
    denoiser = family or load_kernel_denoiser(device=device)
    result = restoration.run(prior, denoiser, device, progress=progress, checkpoint=checkpoint)
    if family is None:
        parameters = {"kernel": result.kernel}
    else:
        fitted = family.fit(result.kernel) if values is None else values.expand(len(y), -1)
        parameters = {key: fitted[:, i] for i, key in enumerate(family.names)}
    return Restored(
        result.tensor,
        parameters,
        y,
        result.noise_sigma,
        result.residual,
        result.trace,
        result.seconds,
        {"boundary": result.settings["boundary"]},
    )


def noise_of(y: Tensor, settings: Settings) -> Tensor:
    """Standard deviations (B,) of the noise, estimated where they are not given."""
    sigma = settings.noise_sigma
    return estimate_noise_sigma(y) if sigma is None else torch.full((len(y),), float(sigma))


def spread(y: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """A measurement (B, C, h, w) on the grid of its super-resolution, and the mask of its pixels there.

    Pixel i of the measurement covers the pixels f i to f (i + 1) - 1, around f i + (f - 1) / 2. For even f
    that is between two pixels, and so is the centre (K - 1) / 2 of a kernel of even size.
    """
    up = y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    mask = torch.zeros(1, 1, *up.shape[-2:])
    first = (factor - 1) // 2
    mask[..., first::factor, first::factor] = 1
    return up, mask
