"""`restore`: `deblur` for any forward operator."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..checks import check_backend, resolve_device
from ..context import own_context
from ..errors import UserError
from ..io.arrays import ValueRange
from ..io.channels import from_rgb, to_rgb
from ..io.inputs import ImageLike, open_image
from ..io.kernels import as_kernel
from ..io.masks import as_mask
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
from ..output.report import versions
from ..output.result import Restored
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from ..priors.prior_names import name_of
from ..restoration.boundary import looks_circular
from ..restoration.image import ImageRestoration
from ..restoration.noise import estimate_noise_sigma
from ..restoration.parametric import ParametricRestoration
from ..restoration.settings import BoundaryChoice, Settings
from ..solver.checkpoint import Checkpoint, digest
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, Progress, WorkCounter
from .registry import completed, parse

# A known parameter: a number, values, a file, or a picture of a mask.
Known: TypeAlias = float | np.ndarray | Tensor | str | Path | Image.Image

_FAMILIES: dict[str, KernelFamily] = {
    "gaussian": GaussianKernels(),
    "disk": DiskKernels(),
}
_ONE_KERNEL = {"blur", "saturation", "superresolution", *_FAMILIES}


@own_context()
def restore(
    image: ImageLike,
    operator: str | Parametric,
    parameters: Mapping[str, Known] | None = None,
    *,
    noise_sigma: float | None = None,
    prior: str | Path | LatentPrior = "embedded",
    steps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    boundary: BoundaryChoice = "auto",
    value_range: ValueRange | None = None,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Restored:
    """Restores a measurement of an image, and the unknown parameters of the operator that made it.

    Args:
        image: measurements, as `deblur` takes images; with an operator object, a tensor (B, C, h, w) need not
            be of images.
        operator: NAME[:PARAMETER=VALUE,...] with the names of `latentdem restore --help`, or an object: one of
            `latentdem.operators`, a composition `outer @ inner`, or your own `Function`.
        parameters: known parameters of the operator by name: numbers, arrays or tensors (B, *shape), or files
            (`Path`). The kernel and the mask are taken in all forms that `deblur` takes.
        noise_sigma: standard deviation of the measurement noise in units of [-1, 1], twice what it is in
            [0, 1], whatever the range of `image`; None estimates it, which needs an image.
        prior: see `deblur`.
        steps: diffusion steps per 1000 timesteps; None takes the default.
        seed: random seed.
        device, precision: see `deblur`.
        boundary: for operators with one kernel, see `deblur`; the others are circular.
        value_range: (black, white) of an array or tensor with another range, see `deblur`.
        progress: called as progress(stage, done, total).
        checkpoint: see `deblur`; for operators with a name.

    Returns:
        `Restored` with `.image` in the form of the input, `.parameters`, `.residual` and `.plot()`.

    Raises:
        UserError: an argument is wrong; the message says which and what to do.

    Example:
        A lens out of focus with a known radius.

        >>> import numpy as np
        >>> from latentdem import restore
        >>> blurred = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
        >>> result = restore(blurred, "disk:size=7,radius=2", noise_sigma=0.01, steps=4, device="cpu")
        >>> result.image.shape, result.image.dtype, float(result.parameters["radius"])
        ((32, 32), dtype('float32'), 2.0)
    """
    started = time.perf_counter()
    if isinstance(image, Tensor) and isinstance(operator, Parametric) and value_range is None:
        # A measurement that need not be an image.
        source, y = None, image.detach().float().clone()
    else:
        source = open_image(image, value_range)
        y = source.pixels
    torch_device = resolve_device(device)
    check_backend()
    settings = Settings(noise_sigma=noise_sigma, steps=steps, seed=seed, boundary=boundary)
    known: dict[str, Any] = dict(parameters or {})
    options: dict[str, Any] = {}
    name = type(operator).__name__
    if isinstance(operator, str):
        name, values = parse(operator)
        options, known = completed(name, {**values, **known})
        if name == "denoise" and "sigma" in known:
            settings = replace(settings, noise_sigma=known.pop("sigma"))
    known = {key: _loaded(key, value, y, isinstance(operator, str)) for key, value in known.items()}
    saved = None
    if checkpoint is not None:
        if not isinstance(operator, str):
            raise UserError("Only operators with a name can be resumed; leave the checkpoint out.")
        identity = _identity(operator, y, known, settings, name_of(prior), torch_device, precision)
        saved = Checkpoint(checkpoint, identity)
    loaded = load_prior(prior, torch_device, precision)
    if name in _ONE_KERNEL:
        result = _restore_one_kernel(name, y, options, known, settings, loaded, torch_device, progress, saved)
    else:
        if isinstance(operator, str):
            operator = _named(name, y, options, load_kernel_denoiser(device=torch_device))
        result = _restore_parametric(operator, y, known, settings, loaded, torch_device, progress, saved)
    if saved is not None:
        saved.remove()
    result.source = source
    result.seconds["total"] = time.perf_counter() - started
    result.settings = {
        "operator": name,
        **options,
        "known": sorted(known),
        "noise_sigma": settings.noise_sigma,
        "steps": steps,
        "seed": seed,
        "prior": name_of(prior),
        "device": str(torch_device),
        "precision": precision,
        **result.settings,
    }
    return result


def _restore_one_kernel(
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
        sigma = _noise(y, settings) / options["exposure"]
        grid = (y + 1) / options["exposure"] - 1
    if name == "superresolution":
        if settings.boundary == "auto":
            settings = replace(settings, boundary="circular" if looks_circular(y) else "valid")
        sigma = _noise(y, settings)
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


def _restore_parametric(
    operator: Parametric,
    y: Tensor,
    known: dict[str, Any],
    settings: Settings,
    prior: LatentPrior,
    device: torch.device,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> Restored:
    """Operators with named parameters."""
    operator = copy(operator)
    operator.fixed = frozenset(known)
    initial = operator.initial(y, known).to(device)
    sigmas = _noise(y, settings)
    restoration = ParametricRestoration(prior, operator, settings.seed)
    if settings.steps is not None:
        restoration = restoration.with_steps(settings.steps)
    measurement = Measurement(to_rgb(y), sigmas).to(device)
    hooks = Hooks(WorkCounter(restoration.work(measurement.y), progress), checkpoint=checkpoint)
    candidates = restoration.run(measurement, initial, hooks)
    image = from_rgb(candidates.image, y.shape[1])
    values = {key: value.cpu() for key, value in operator.unpack(candidates.parameters).items()}
    if isinstance(operator, Denoising):
        values["sigma"] = sigmas
    return Restored(image.cpu(), values, y, sigmas, candidates.residual.cpu(), candidates.trace, {}, {})


def _noise(y: Tensor, settings: Settings) -> Tensor:
    """Standard deviations (B,) of the noise, estimated where they are not given."""
    sigma = settings.noise_sigma
    return estimate_noise_sigma(y) if sigma is None else torch.full((len(y),), float(sigma))


def _named(name: str, y: Tensor, options: dict[str, Any], denoiser: KernelDenoiser) -> Parametric:
    height, width = y.shape[-2:]
    if name == "denoise":
        return Denoising()
    if name == "inpaint":
        return Inpainting(height, width, 2 * options["colour"] - 1, options["shape"])
    if name == "varying":
        return VaryingBlur(options["size"], height, width, options["grid"], denoiser.denoise)
    if name == "response":
        return CameraResponse(options["size"])
    return Gamma()


def _identity(
    operator: str,
    y: Tensor,
    known: dict[str, Any],
    settings: Settings,
    prior: str,
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """Everything that determines the bits of the result, as plain data for a checkpoint."""
    given = {key: digest(value) if isinstance(value, Tensor) else value for key, value in known.items()}
    return {
        "operator": operator,
        **settings.as_dict(kernel_known=bool(known)),
        "prior": prior,
        "device": str(device),
        "precision": precision,
        "backend": check_backend(),
        **versions(),
        "parameters": given,
        "image": digest(y),
    }


def _loaded(key: str, value: Known, y: Tensor, named: bool) -> Any:
    """The value of a parameter, which is read if it is a file.

    In an operator of the user, `named` being False, a parameter called mask may be anything but a file.
    """
    if key == "kernel":
        return as_kernel(value)  # type: ignore[arg-type]  # refuses numbers itself
    if key == "mask" and (named or isinstance(value, (str, Path))):
        return as_mask(value, y.shape[-2], y.shape[-1], len(y))  # type: ignore[arg-type]  # refuses numbers, too
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).float()
    if not isinstance(value, Path):
        return value
    try:
        return torch.from_numpy(np.load(value)).float()
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{value} is not a NumPy file that can be read: {error}.") from error


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
