"""`restore`: `deblur` for any forward operator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
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
    CameraResponse,
    Denoising,
    Gamma,
    Inpainting,
    Parametric,
    VaryingBlur,
)
from ..output.report import versions
from ..output.result import Restored
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from ..priors.prior_names import name_of
from ..restoration.parametric import ParametricRestoration
from ..restoration.settings import BoundaryChoice, Settings
from ..solver.checkpoint import Checkpoint, digest
from ..solver.graph import cuda_graphs
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, Progress, WorkCounter
from .one_kernel import ONE_KERNEL, noise_of, restore_one_kernel
from .registry import completed, parse

# A known parameter: a number, values, a file, or a picture of a mask.
Known: TypeAlias = float | np.ndarray | Tensor | str | Path | Image.Image


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
    cuda_graph: bool = True,
    compile: bool = False,
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
        cuda_graph, compile: see `deblur`.

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
    networks = {"precision": precision} | ({"compiled": True} if compile else {})
    if checkpoint is not None:
        if not isinstance(operator, str):
            raise UserError("Only operators with a name can be resumed; leave the checkpoint out.")
        identity = _identity(operator, y, known, settings, name_of(prior), torch_device, networks)
        saved = Checkpoint(checkpoint, identity)
    loaded = load_prior(prior, torch_device, precision, compile)
    if isinstance(operator, str) and name not in ONE_KERNEL:
        operator = _named(name, y, options, load_kernel_denoiser(device=torch_device))
    with cuda_graphs(cuda_graph):
        rest = settings, loaded, torch_device, progress, saved
        if isinstance(operator, str):
            result = restore_one_kernel(name, y, options, known, *rest)
        else:
            result = _restore_parametric(operator, y, known, *rest)
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
        **networks,
        **result.settings,
    }
    return result


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
    sigmas = noise_of(y, settings)
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
    networks: dict[str, Any],
) -> dict[str, Any]:
    """Everything that determines the bits of the result, as plain data for a checkpoint."""
    given = {key: digest(value) if isinstance(value, Tensor) else value for key, value in known.items()}
    return {
        "operator": operator,
        **settings.as_dict(kernel_known=bool(known)),
        "prior": prior,
        "device": str(device),
        **networks,
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
