"""`burst`: several photographs of one scene in, one sharp photograph out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checks import check_backend, resolve_device
from ..context import own_context
from ..io.arrays import ValueRange
from ..io.inputs import OneImage, open_image
from ..output.result import Restored
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import load_kernel_denoiser
from ..priors.prior_names import name_of
from ..restoration.burst import BurstRestoration
from ..restoration.config import Quality
from ..restoration.settings import Settings
from ..solver.passes import Progress


@own_context()
def burst(
    images: Sequence[OneImage] | torch.Tensor,
    kernel_size: int | None = None,
    *,
    noise_sigma: float | None = None,
    prior: str | Path | LatentPrior = "embedded",
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    quality: Quality = "auto",
    value_range: ValueRange | None = None,
    progress: Progress | None = None,
) -> Restored:
    """Restores one image from several photographs of a scene, each with a blur of its own.

    The photographs may be shifted and turned against each other, and have to be of one exposure. Those that no
    kernel explains are left out, with a warning. The image shows the scene as the one with the narrowest blur
    does, the reference.

    Args:
        images: two or more photographs of one size and kind, in the forms that `deblur` takes.
        kernel_size, noise_sigma, seed, quality: see `latentdem.Settings`; they hold for all photographs.
        prior, device, precision, value_range, progress: see `deblur`.

    Returns:
        `Restored` with `.image` in the form of the reference and these `.parameters` of the F photographs that
        are used, whose numbers from 1 on are in `.settings["photographs"]`, the reference first: `kernels`
        (1, F, K, K); `shift` (1, F, 2), the pixels (down, right) by which the middle of the scene lies further
        than in the reference; and `rotation` (1, F), by how many degrees it is turned clockwise.

    Raises:
        UserError: an argument is wrong, a photograph cannot be registered, or no kernel explains any of them;
            the message says which and what to do.
    """
    started = time.perf_counter()
    source = open_image(images, value_range)
    restoration = BurstRestoration(
        source.pixels,
        Settings(kernel_size, noise_sigma, seed=seed, quality=quality),
        source.opaque,
    )
    torch_device = resolve_device(device)
    check_backend()
    loaded, denoiser = load_prior(prior, torch_device, precision), load_kernel_denoiser(device=torch_device)
    loading = time.perf_counter() - started
    result = restoration.run(loaded, denoiser, torch_device, progress=progress)
    first = result.settings["photographs"][0] - 1
    result.source = source.pick(slice(first, first + 1))
    result.seconds["loading"] = loading
    result.seconds["total"] += loading
    result.settings |= {"prior": name_of(prior), "precision": precision}
    return result
