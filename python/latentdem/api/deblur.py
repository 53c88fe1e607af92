"""`deblur`: a photograph in, the sharp photograph and its blur kernel out."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch

from ..checks import check_backend, resolve_device
from ..context import own_context
from ..io.arrays import ValueRange
from ..io.inputs import ImageLike, open_image
from ..io.kernels import KernelLike, as_kernel
from ..io.masks import MaskLike, as_mask
from ..output.report import versions
from ..output.result import Result
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import load_kernel_denoiser
from ..priors.prior_names import name_of
from ..restoration.config import Quality
from ..restoration.image import ImageRestoration
from ..restoration.settings import BlurChoice, BoundaryChoice, GammaChoice, Settings
from ..solver.checkpoint import Checkpoint, digest
from ..solver.graph import cuda_graphs
from ..solver.passes import Progress


@own_context()
def deblur(
    image: ImageLike,
    kernel_size: int | None = None,
    *,
    kernel: KernelLike | None = None,
    noise_sigma: float | None = None,
    prior: str | Path | LatentPrior = "embedded",
    e_step: Literal["proximal", "posterior"] = "proximal",
    without: Collection[str] = (),
    steps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    precision: str = "auto",
    boundary: BoundaryChoice = "auto",
    num_samples: int = 1,
    quality: Quality = "auto",
    gamma: GammaChoice = 1.0,
    blur: BlurChoice = "uniform",
    same_kernel: bool = False,
    mask: MaskLike | None = None,
    value_range: ValueRange | None = None,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
    cuda_graph: bool = True,
    compile: bool = False,
) -> Result:
    """Restores blurred images and their blur kernels.

    Args:
        image: a path; the contents of a file (bytes); a PIL image; an array (H, W) or (H, W, C) of floats in
            [0, 1] or of whole numbers from 0 to the greatest of their type; a tensor (H, W), (C, H, W) or
            (B, C, H, W) of floats in [-1, 1] or of whole numbers; or a list of images of one size. C is 1 or
            3, or 2 or 4 with opacity, which the result keeps.
        kernel_size, noise_sigma, e_step, without, steps, seed, boundary, num_samples, quality, gamma, blur,
            same_kernel: see `latentdem.Settings`. `noise_sigma` is in units of [-1, 1], twice what it is in
            [0, 1], whatever the range of `image`.
        kernel: the true kernel, with its origin at K // 2: an array or tensor (K, K) or (B, 1, K, K), or a file
            (see `io.kernels.read_kernel`), which is divided by its sum. Then only the image is restored and
            `kernel_size` does not count.
        mask: which pixels count: an array or tensor (H, W) or (1 or B, 1, H, W) that is 0 where they do not, or
            a picture (path or PIL image) that is black there. The others come back as they were. None for all
            but the wholly transparent ones. Frames, dead pixels, stamps and blown-out lights are found without.
        prior: "embedded", "sd15", a folder, a file, an id on the Hugging Face hub (see `load_prior`) or a
            `LatentPrior`.
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1" and so on, or "mps".
        precision: what the networks of a prior given by name compute in: "auto", "float32", "bfloat16" or
            "float16", see `load_prior`.
        value_range: (black, white) of an array or tensor with another range, such as (0, 1) or (0, 255).
        progress: called as progress(stage, done, total) after every step; total counts the whole job.
        checkpoint: folder in which the run is saved every few seconds. The same call resumes an interrupted
            run, with the same result; at the end the folder is removed.
        cuda_graph: on CUDA, capture the steps as CUDA graphs where they can be; the result is the same.
        compile: have PyTorch compile the networks of a prior given by name, see `load_prior`. It takes up to
            minutes, which many photographs of one size with a large prior are worth.

    Returns:
        `Result` with `.image` in the form of the input, `.kernel`, `.trace`, `.save()` and `.plot()`.

    Raises:
        UserError: an argument is wrong; the message says which and what to do.

    Example:
        An array comes back as an array of the same type; the kernel is known here, which takes less time.

        >>> import numpy as np
        >>> from latentdem import deblur
        >>> blurred = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
        >>> result = deblur(blurred, kernel=np.ones((3, 3)), steps=4, device="cpu")
        >>> result.image.shape, result.image.dtype, result.kernel.shape
        ((32, 32), dtype('uint8'), torch.Size([1, 1, 3, 3]))
    """
    started = time.perf_counter()
    source = open_image(image, value_range)
    y = source.pixels
    settings = Settings(
        kernel_size,
        noise_sigma,
        e_step,
        without,
        steps,
        seed,
        boundary,
        num_samples,
        quality,
        gamma,
        blur,
        same_kernel,
    )
    counts = source.opaque if mask is None else as_mask(mask, y.shape[-2], y.shape[-1], len(y))
    restoration = ImageRestoration(y, settings, None if kernel is None else as_kernel(kernel), counts)
    torch_device = resolve_device(device)
    check_backend()
    saved = None
    networks = {"precision": precision} | ({"compiled": True} if compile else {})
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, _identity(restoration, name_of(prior), str(torch_device), networks))
    loaded = load_prior(prior, torch_device, precision, compile)
    denoiser = load_kernel_denoiser(device=torch_device)
    loading = time.perf_counter() - started
    with cuda_graphs(cuda_graph):
        result = restoration.run(loaded, denoiser, torch_device, progress=progress, checkpoint=saved)
    if saved is not None:
        saved.remove()
    result.source = source
    result.seconds["loading"] = loading
    result.seconds["total"] += loading
    result.settings |= {"prior": name_of(prior), **networks}
    return result


def _identity(
    restoration: ImageRestoration, prior: str, device: str, networks: dict[str, Any]
) -> dict[str, Any]:
    """Everything that determines the bits of the result, as plain data for a checkpoint."""
    kernel, mask = restoration.kernel, restoration.mask
    tensors = [tensor for tensor in (restoration.y, kernel, mask) if tensor is not None]
    return {
        **restoration.settings.as_dict(kernel_known=kernel is not None),
        "prior": prior,
        "device": device,
        **networks,
        "backend": check_backend(),
        **versions(),
        "image and kernel": " ".join(map(digest, tensors)),
    }
