"""`restore`: `deblur` for any forward operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..checks import check_backend, check_noise_sigma, resolve_device
from ..errors import UserError
from ..io.images import read_image, read_kernel, to_tensor
from ..operators import (
    AntiAliasing,
    Blur,
    CameraResponse,
    Denoising,
    DiskKernels,
    Gamma,
    GaussianKernels,
    Inpainting,
    KernelFamily,
    Parametric,
    Saturation,
    StridedBlur,
    VaryingBlur,
)
from ..output.result import Restored
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from ..restoration.boundary import looks_circular
from ..restoration.image import Progress
from ..restoration.noise import estimate_noise_sigma
from ..restoration.parametric import ParametricRestoration
from ..solver.passes import Hooks, Pass
from .job import Job, name_of
from .registry import completed, parse

_FAMILIES: dict[str, KernelFamily] = {
    "gaussian": GaussianKernels(),
    "disk": DiskKernels(),
}
_ONE_KERNEL = {"blur", "saturation", "superresolution", *_FAMILIES}


def restore(
    image: Any,
    operator: str | Parametric,
    parameters: Mapping[str, Any] | None = None,
    *,
    noise_sigma: float | None = None,
    prior: str | Path | LatentPrior = "embedded",
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    boundary: Literal["auto", "circular", "valid"] = "auto",
    progress: Progress | None = None,
) -> Restored:
    """Restores a measurement of an image, and the unknown parameters of the operator that made it.

    Args:
        image: one measurement, as `deblur` takes it; an operator object takes a tensor (B, C, h, w) of several.
        operator: NAME[:PARAMETER=VALUE,...] with the names of `latentdem restore --help`, or an object: one of
            `latentdem.operators`, a composition `outer @ inner`, a `Function` of one's own.
        parameters: what is known of the operator by name: values (B, *shape) or files (`Path`).
        noise_sigma: standard deviation of the measurement noise in units of [-1, 1]; None estimates it, which
            needs a measurement that is an image.
        prior: see `deblur`.
        steps: diffusion steps per 1000 timesteps; None takes the default.
        seed: of all randomness.
        device: "auto", "cpu" or "cuda".
        boundary: of operators with one kernel, see `deblur`; the others are circular.
        progress: called as progress(stage, done, total).

    Returns:
        `Restored` with `.image`, `.parameters`, `.residual` and `.plot()`.

    Raises:
        UserError: an argument is wrong; the message says which and what to do.
    """
    started = time.perf_counter()
    y = image.float() if isinstance(image, Tensor) and isinstance(operator, Parametric) else to_tensor(image)
    where = resolve_device(device)
    check_backend()
    if noise_sigma is not None:
        check_noise_sigma(noise_sigma)
    if steps is not None and steps < 2:
        raise UserError(f"At least 2 steps are needed, not {steps}.")
    known = dict(parameters or {})
    settings: dict[str, Any] = {}
    name = type(operator).__name__
    if isinstance(operator, str):
        if len(y) != 1:
            raise UserError("An operator with a name restores one image; give them one by one.")
        name, values = parse(operator)
        settings, known = completed(name, {**values, **known})
        if name == "denoise":
            noise_sigma = known.pop("sigma", noise_sigma)
        known = {key: _loaded(key, value, y) for key, value in known.items()}
    loaded = load_prior(prior, where)
    if name in _ONE_KERNEL:
        result = _one_kernel(
            name, y, settings, known, noise_sigma, loaded, steps, seed, where, boundary, progress
        )
    else:
        if isinstance(operator, str):
            operator = _named(name, y, settings, load_kernel_denoiser(device=where))
        result = _general(operator, y, known, noise_sigma, loaded, steps, seed, where, progress)
    result.seconds["total"] = time.perf_counter() - started
    result.settings = {
        "operator": name,
        **settings,
        "known": sorted(known),
        "noise_sigma": noise_sigma,
        "steps": steps,
        "seed": seed,
        "prior": name_of(prior),
        "device": str(where),
        **result.settings,
    }
    return result


def _one_kernel(
    name: str,
    y: Tensor,
    settings: dict[str, Any],
    known: dict[str, Any],
    noise_sigma: float | None,
    prior: LatentPrior,
    steps: int | None,
    seed: int,
    device: torch.device,
    boundary: Literal["auto", "circular", "valid"],
    progress: Progress | None,
) -> Restored:
    """Operators that are one kernel and a mask: the jobs of `deblur`."""
    family, factor = _FAMILIES.get(name), settings.get("factor", 1)
    size = settings.get("size", 6 * factor if factor % 2 == 0 else 25)
    mask, lattice = None, y
    made: Callable[..., Blur] = Blur
    if name == "saturation":
        mask = Saturation().measured(y)
        if not mask.any():
            raise UserError("Every pixel is clipped to black or white; give an image that is not.")
        noise_sigma = (noise_sigma or float(estimate_noise_sigma(y))) / settings["exposure"]
        lattice = (y + 1) / settings["exposure"] - 1
    if name == "superresolution":
        if boundary == "auto":
            boundary = "circular" if looks_circular(y) else "valid"
        noise_sigma = noise_sigma or float(estimate_noise_sigma(y))
        lattice, mask = spread(y, factor)
        made, family = partial(StridedBlur, stride=factor), AntiAliasing(factor)
    kernel, values = known.get("kernel"), None
    if family is not None and known:
        values = torch.tensor([[float(known[key]) for key in family.names]])
        kernel = family.kernel(values, size)
    job = Job(
        lattice,
        size,
        kernel,
        noise_sigma,
        steps=steps,
        seed=seed,
        boundary=boundary,
        mask=mask,
        operator=made,
        # Lights beyond the range of the result are in no model.
        cautious=name == "saturation",
    )
    found = job.run(prior, family or load_kernel_denoiser(device=device), device, progress=progress)
    if family is None:
        parameters = {"kernel": found.kernel}
    else:
        fitted = family.fit(found.kernel) if values is None else values
        parameters = {key: fitted[:, i] for i, key in enumerate(family.names)}
    return Restored(
        found.image,
        parameters,
        y,
        found.noise_sigma,
        found.residual,
        found.trace,
        found.seconds,
        {"boundary": found.settings["boundary"]},
    )


def _general(
    operator: Parametric,
    y: Tensor,
    known: dict[str, Any],
    noise_sigma: float | None,
    prior: LatentPrior,
    steps: int | None,
    seed: int,
    device: torch.device,
    progress: Progress | None,
) -> Restored:
    """Operators with named parameters."""
    operator = copy(operator)
    operator.fixed = frozenset(known)
    started = operator.initial(y, known).to(device)
    sigma = estimate_noise_sigma(y) if noise_sigma is None else torch.full((len(y),), float(noise_sigma))
    restoration = ParametricRestoration(prior, operator, seed)
    if steps is not None:
        passes = (restoration.search, restoration.final)
        search, final = (tuple(Pass(steps, each.start) for each in part) for part in passes)
        restoration = replace(restoration, search=search, final=final)
    measured = (y if y.shape[1] == 3 else y.expand(-1, 3, -1, -1)).to(device)
    done, total = 0, restoration.work(measured)

    def on_work(stage: str, pixels: int) -> None:
        nonlocal done
        done += pixels
        if progress is not None:
            progress(stage, min(done, total), total)

    found = restoration.run(measured, sigma.to(device), started, Hooks(on_work))
    image = found.image if y.shape[1] == 3 else found.image.mean(1, keepdim=True)
    values = {key: value.cpu() for key, value in operator.unpack(found.parameters).items()}
    if isinstance(operator, Denoising):
        values["sigma"] = sigma
    return Restored(image.cpu(), values, y, sigma, found.residual.cpu(), found.trace, {}, {})


def _named(name: str, y: Tensor, settings: dict[str, Any], denoiser: KernelDenoiser) -> Parametric:
    height, width = y.shape[-2:]
    if name == "denoise":
        return Denoising()
    if name == "inpaint":
        return Inpainting(height, width, 2 * settings["colour"] - 1, settings["shape"])
    if name == "varying":
        return VaryingBlur(settings["size"], height, width, settings["grid"], denoiser.denoise)
    if name == "response":
        return CameraResponse(settings["size"])
    return Gamma()


def _loaded(key: str, value: Any, y: Tensor) -> Any:
    """The value of a parameter, read if it is a file."""
    if not isinstance(value, Path):
        return value
    if key == "kernel":
        return read_kernel(value)
    if key == "mask":
        mask = read_image(value).pixels.mean(1, keepdim=True)
        if mask.shape[-2:] != y.shape[-2:]:
            raise UserError(f"The mask {value} must have the size of the image.")
        return (mask > 0).float()
    try:
        return torch.from_numpy(np.load(value)).float()
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{value} is not a NumPy file that can be read: {error}.") from error


def spread(y: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """A measurement (B, C, h, w) on the lattice of its super-resolution, and the mask of its pixels there.

    Pixel i of the measurement stands for the pixels f i to f (i + 1) - 1, around f i + (f - 1) / 2. For even f
    that is between two pixels, and so is the centre (K - 1) / 2 of a kernel of even size.
    """
    up = y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    mask = torch.zeros(1, 1, *up.shape[-2:])
    first = (factor - 1) // 2
    mask[..., first::factor, first::factor] = 1
    return up, mask
