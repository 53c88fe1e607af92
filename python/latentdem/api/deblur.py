"""`deblur`: a photograph in, the sharp photograph and its blur kernel out."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..checks import check_backend, resolve_device
from ..errors import UserError
from ..io.images import read_image, to_tensor
from ..output.report import versions
from ..output.result import Result
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import load_kernel_denoiser
from ..priors.prior_names import name_of
from ..restoration.config import Quality
from ..restoration.image import ImageRestoration
from ..restoration.settings import BoundaryChoice, Settings
from ..solver.checkpoint import Checkpoint, digest
from ..solver.passes import Progress


def deblur(
    image: Any,
    kernel_size: int | None = None,
    *,
    kernel: Tensor | None = None,
    noise_sigma: float | None = None,
    prior: str | Path | LatentPrior = "embedded",
    e_step: Literal["proximal", "posterior"] = "proximal",
    without: Collection[str] = (),
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    boundary: BoundaryChoice = "auto",
    num_samples: int = 1,
    quality: Quality = "auto",
    mask: Tensor | None = None,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Result:
    """Restores blurred images and their blur kernels.

    Args:
        image: a path, a PIL image, an array (H, W[, 3]) of uint8, uint16 or floats in [0, 1], or a tensor
            (B, C, H, W) in [-1, 1] with C = 1 or 3.
        kernel_size, noise_sigma, e_step, without, steps, seed, boundary, num_samples, quality: see
            `latentdem.Settings`.
        kernel: (1 or B, 1, K, K) the true kernel, non-negative with sum 1 and its origin at K // 2: then only
            the image is restored and `kernel_size` does not count.
        mask: (1 or B, 1, H, W), 0 for pixels that do not count, such as transparent ones, and come back as they
            were. None for all, and for the transparency of a file given as a path. Frames, dead pixels, stamps
            and blown-out lights are found without it.
        prior: "embedded", "sd15", a folder, a file, an id on the Hugging Face hub (see `load_prior`) or a
            `LatentPrior`.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" and so on, or "mps".
        precision: what the networks of a prior given by name compute in: "auto", "float32", "bfloat16" or
            "float16", see `load_prior`.
        progress: called as progress(stage, done, total) after every step; total counts the whole job.
        checkpoint: folder in which the run is saved every few seconds. The same call resumes an interrupted
            run, with the same result; at the end the folder is removed.

    Returns:
        `Result` with `.image`, `.kernel`, `.trace` and `.plot()`.

    Raises:
        UserError: an argument is wrong; the message says which and what to do.
    """
    started = time.perf_counter()
    if isinstance(image, (str, Path)):
        source = read_image(image)
        image, mask = source.pixels, source.opaque if mask is None else mask
    y = to_tensor(image)
    settings = Settings(kernel_size, noise_sigma, e_step, without, steps, seed, boundary, num_samples, quality)
    restoration = ImageRestoration(y, settings, kernel, _checked(mask, y))
    torch_device = resolve_device(device)
    check_backend()
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, _identity(restoration, name_of(prior), str(torch_device), precision))
    loaded, denoiser = load_prior(prior, torch_device, precision), load_kernel_denoiser(device=torch_device)
    loading = time.perf_counter() - started
    result = restoration.run(loaded, denoiser, torch_device, progress=progress, checkpoint=saved)
    if saved is not None:
        saved.remove()
    result.seconds["loading"] = loading
    result.seconds["total"] += loading
    result.settings |= {"prior": name_of(prior), "precision": precision}
    return result


def _checked(mask: Tensor | None, y: Tensor) -> Tensor | None:
    """The mask as float32, 0 or 1."""
    if mask is None:
        return None
    if mask.ndim != 4 or len(mask) not in (1, len(y)) or mask.shape[1:] != (1, *y.shape[2:]):
        raise UserError(f"A mask has the shape (1 or B, 1, H, W) of the image, not {tuple(mask.shape)}.")
    mask = (mask > 0).float()
    if not mask.flatten(1).any(1).all():
        raise UserError("No pixel of the image counts; give a mask with pixels, or an image that can be seen.")
    return mask


def _identity(restoration: ImageRestoration, prior: str, device: str, precision: str) -> dict[str, Any]:
    """Everything that determines the bits of the result, as plain data for a checkpoint."""
    kernel, mask = restoration.kernel, restoration.mask
    tensors = [tensor for tensor in (restoration.y, kernel, mask) if tensor is not None]
    return {
        **restoration.settings.as_dict(kernel_known=kernel is not None),
        "prior": prior,
        "device": device,
        "precision": precision,
        "backend": check_backend(),
        **versions(),
        "image and kernel": " ".join(map(digest, tensors)),
    }
