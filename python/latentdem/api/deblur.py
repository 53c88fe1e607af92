"""`deblur`: a photograph in, the sharp photograph and its blur kernel out."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..checks import check_backend, resolve_device
from ..io.images import to_tensor
from ..output.result import Result
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import load_kernel_denoiser
from ..restoration.image import Progress
from .job import Job, name_of


def deblur(
    image: Any,
    kernel_size: int = 64,
    *,
    kernel: Tensor | None = None,
    noise_sigma: float | None = None,
    prior: str | Path | LatentPrior = "embedded",
    e_step: Literal["proximal", "posterior"] = "proximal",
    without: Collection[str] = (),
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    boundary: Literal["auto", "circular", "valid"] = "auto",
    num_samples: int = 1,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Result:
    """Restores blurred images and their blur kernels.

    Args:
        image: a path, a PIL image, an array (H, W[, 3]) of uint8, uint16 or floats in [0, 1], or a tensor
            (B, C, H, W) in [-1, 1] with C = 1 or 3.
        kernel_size: K of the K x K kernel, from 3 to the smaller side of the image; at least as wide as the
            blur.
        kernel: (1 or B, 1, K, K) the true kernel, non-negative with sum 1 and its origin at K // 2: then only
            the image is restored and `kernel_size` does not count.
        noise_sigma: standard deviation of the measurement noise in units of [-1, 1]; None estimates it.
        prior: "embedded", "sd15", a folder, a file, an id on the Hugging Face hub (see `load_prior`) or a
            `LatentPrior`.
        e_step: "proximal" (closed form, the default) or "posterior" (Algorithm 1 of the paper with its
            constants; far slower).
        without: parts of the posterior E-step to leave out, to see what they do: any of "annealing" (its weight
            is the last one throughout), "gluing" and "skipping" (every step is a full one).
        steps: diffusion steps per 1000 timesteps; None takes the E-step's default.
        seed: of all randomness; the same seed gives the same image.
        device: "auto", "cpu" or "cuda".
        boundary: "circular" when the blur wraps around, "valid" when light came in from beyond the frame as
            in every photograph, "auto" to look at the edges and decide.
        num_samples: posterior samples that the M-step sums over; the image is the mean of at least 4 with the
            proximal E-step, and of these with the posterior one.
        progress: called as progress(stage, done, total) after every step; total counts the whole job.
        checkpoint: folder that the run is kept in every few seconds. The same call goes on where an interrupted
            one was, with the same result; at the end the folder is removed.

    Returns:
        `Result` with `.image`, `.kernel`, `.trace` and `.plot()`.

    Raises:
        UserError: an argument is wrong; the message says which and what to do.
    """
    started = time.perf_counter()
    job = Job(
        to_tensor(image), kernel_size, kernel, noise_sigma, e_step, without, steps, seed, boundary, num_samples
    )
    where = resolve_device(device)
    check_backend()
    kept = None if checkpoint is None else job.checkpoint(checkpoint, name_of(prior), where)
    loaded, denoiser = load_prior(prior, where), load_kernel_denoiser(device=where)
    loading = time.perf_counter() - started
    result = job.run(loaded, denoiser, where, progress=progress, checkpoint=kept)
    if kept is not None:
        kept.remove()
    result.seconds["loading"] = loading
    result.seconds["total"] += loading
    result.settings["prior"] = name_of(prior)
    return result
