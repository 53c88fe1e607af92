"""`deblur`: a photograph in, the sharp photograph and its blur kernel out."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from latentdem_ext import record_backends

from .blind import PAPER, BlindSearch, Recipe
from .boundary import looks_circular
from .checks import check_backend, check_kernel, check_kernel_size, check_noise_sigma, resolve_device
from .e_steps import Posterior
from .errors import UserError
from .io import to_tensor
from .kernel_denoiser import load_kernel_denoiser
from .noise import estimate_noise_sigma
from .priors import LatentPrior, load_prior
from .restoration import KnownKernel, Progress, Restoration
from .result import Result
from .schedules import EVERY_STEP, Skip


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

    Returns:
        `Result` with `.image`, `.kernel`, `.trace` and `.plot()`.

    Raises:
        UserError: an argument is wrong; the message says which and what to do.
    """
    started = time.perf_counter()
    y = to_tensor(image)
    batch, channels, height, width = y.shape
    if kernel is not None:
        kernel = check_kernel(kernel, batch)
        kernel_size = kernel.shape[-1]
    check_kernel_size(kernel_size, height, width)
    where, backend = resolve_device(device), check_backend()
    if boundary not in ("auto", "circular", "valid"):
        raise UserError(f"Unknown boundary '{boundary}'; give auto, circular or valid.")
    sigma = (
        estimate_noise_sigma(y) if noise_sigma is None else torch.full((batch,), check_noise_sigma(noise_sigma))
    )
    circular = looks_circular(y) if boundary == "auto" else boundary == "circular"
    search, known = build_methods(load_prior(prior, where), where, e_step, steps, num_samples, without)
    again = e_step == "proximal"
    restoration = Restoration(search, known, again, kernel_size, seed, circular, progress)
    restoration.seconds["loading"] = time.perf_counter() - started
    with record_backends() as operations:
        found = restoration.run(
            y.expand(-1, 3, -1, -1).to(where), sigma.to(where), None if kernel is None else kernel.to(where)
        )
    restored = found.image if channels == 3 else found.image.mean(1, keepdim=True)
    restoration.seconds["total"] = time.perf_counter() - started
    return Result(
        image=restored.cpu(),
        kernel=found.kernel.cpu(),
        blurred=y,
        noise_sigma=sigma.cpu(),
        residual=found.residual.cpu(),
        trace=found.trace,
        seconds=restoration.seconds,
        settings={
            "kernel_size": kernel_size,
            "kernel_known": kernel is not None,
            "noise_sigma": noise_sigma,
            "prior": str(prior) if isinstance(prior, (str, Path)) else _name(prior),
            "e_step": e_step,
            "without": sorted(without),
            "steps": steps,
            "seed": seed,
            "device": str(where),
            "backend": backend,
            "operations": {name: ", ".join(used) for name, used in sorted(operations.items())},
            "boundary": "circular" if circular else "valid",
            "num_samples": num_samples,
        },
    )


def build_methods(
    prior: LatentPrior,
    device: torch.device,
    e_step: Literal["proximal", "posterior"] = "proximal",
    steps: int | None = None,
    num_samples: int = 1,
    without: Collection[str] = (),
) -> tuple[BlindSearch, KnownKernel]:
    """The blind search and the restoration with a known kernel that belong to an E-step.

    Raises:
        UserError: unknown E-step, a part to leave out that it does not have, or a number of steps or samples
            that is too small.
    """
    if e_step not in ("proximal", "posterior"):
        raise UserError(f"Unknown E-step '{e_step}'; give proximal or posterior.")
    parts = ("annealing", "gluing", "skipping") if e_step == "posterior" else ()
    for part in without:
        if part not in parts:
            raise UserError(
                f"The {e_step} E-step has no {part} to leave out; "
                + (f"it has {', '.join(parts)}." if parts else "the posterior one has such parts.")
            )
    if (steps is not None and steps < 2) or num_samples < 1:
        raise UserError("At least 2 steps and 1 sample are needed.")
    recipe, known = Recipe(), KnownKernel()
    known = replace(known, num_samples=max(known.num_samples, num_samples))
    skip, step = EVERY_STEP, None
    if e_step == "posterior":
        recipe = PAPER
        skip = EVERY_STEP if "skipping" in without else Skip()
        step = Posterior()
        if "annealing" in without:
            step = replace(step, annealing=None)
        if "gluing" in without:
            step = replace(step, gluing=0.0)
        known = KnownKernel(PAPER.coarse[0].passes, step, skip, num_samples)
    if steps is not None:
        coarse, fine = (tuple(_with_steps(each, steps) for each in r) for r in (recipe.coarse, recipe.fine))
        recipe, known = replace(recipe, coarse=coarse, fine=fine), _with_steps(known, steps)
    denoiser = load_kernel_denoiser(device=device)
    return BlindSearch(prior, denoiser, recipe, step, skip, num_samples), known


def _name(prior: LatentPrior) -> str:
    """What a prior calls itself, or its class."""
    return getattr(prior, "name", type(prior).__name__)


def _with_steps(each: Any, steps: int) -> Any:
    """A `Round` or `KnownKernel` whose passes take `steps` per 1000 timesteps."""
    return replace(each, passes=tuple(replace(one, steps=steps) for one in each.passes))
