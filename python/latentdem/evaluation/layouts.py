"""Where programs of other people leave their pictures and kernels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..io.images import SUFFIXES, read_image
from ..io.kernels import read_kernel


@dataclass(frozen=True)
class Layout:
    """File names of one program, without suffix.

    Attributes:
        program: its name.
        picture: of a restored picture, in terms of {stem} and {index}: the stem of the input and its number in
            the sorted folder, from 0.
        kernel: of the estimated kernel, None where the program writes none.
        turned: whether the program correlates with its kernel instead of convolving, as `conv2d` of PyTorch
            does, so that its kernel is ours turned by 180 degrees.
    """

    program: str
    picture: str
    kernel: str | None = None
    turned: bool = False


_PICTURES = (".png", *sorted(SUFFIXES - {".png"}))
LAYOUTS = (
    Layout("any, MPRNet, NAFNet, DeblurGAN-v2", "{stem}", "{stem}_kernel"),
    Layout("latentdem deblur", "{stem}_deblurred", "{stem}_kernel"),
    Layout("latentdem evaluate", "images/{index:03d}_{stem}_restored", "images/{index:03d}_{stem}_kernel"),
    Layout("BlindDPS", "recon/img_{index:05d}", "recon/ker_{index:05d}", turned=True),
    Layout("FastDiffusionEM", "recon/{stem}_E", "recon/{stem}_ker"),
    Layout("GibbsDDRM", "{index}_-1", "estimated_kernel_{index}"),
    Layout("PRISM", "recon/{index:05d}_run_0_sample", "kernels_est/kernel_process_{index:05d}_run_0"),
    Layout("Restormer", "Motion_Deblurring/{stem}"),
    Layout("Self-Deblur", "{stem}_x", "{stem}_k", turned=True),
)


@dataclass(frozen=True)
class Found:
    """Files of one result, and how its kernel is stored."""

    picture: Path
    kernel: Path | None
    turned: bool

    def read_picture(self) -> Tensor:
        """(1, C, H, W) in [-1, 1].

        Raises:
            UserError: the file cannot be read.
        """
        return read_image(self.picture).pixels

    def read_kernel(self) -> Tensor | None:
        """(1, 1, K, K), non-negative with sum 1, for convolution; None without a kernel.

        Of a stack (N, K, K) of kernels, which holds the course of the estimate, the last one counts.

        Raises:
            UserError: the file cannot be read, or is no square kernel.
        """
        if self.kernel is None:
            return None
        last = _last_of_stack(self.kernel)
        kernel = read_kernel(self.kernel) if last is None else last
        return kernel.flip(-2, -1) if self.turned else kernel


def find_result(folder: Path, stems: Collection[str], index: int) -> Found | None:
    """The result of one input in the first layout that has it.

    Args:
        folder: folder of the results.
        stems: names without suffix that the input may have had.
        index: number of the input in its sorted folder, from 0.
    """
    for layout in LAYOUTS:
        for stem in stems:
            picture = _file(folder, layout.picture.format(stem=stem, index=index), _PICTURES)
            if picture is None:
                continue
            kernel = None
            if layout.kernel is not None:
                place = layout.kernel.format(stem=stem, index=index)
                kernel = _file(folder, place, (".npy", *_PICTURES))
            return Found(picture, kernel, layout.turned)
    return None


def _file(folder: Path, stem: str, suffixes: Collection[str]) -> Path | None:
    paths = (folder / (stem + suffix) for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def _last_of_stack(path: Path) -> Tensor | None:
    """The last kernel (1, 1, K, K) of a .npy file with several, None where the file is another one.

    Raises:
        UserError: it is no kernel.
    """
    if path.suffix != ".npy":
        return None
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # `read_kernel` says what is wrong with it
        return None
    if array.ndim != 3 or len(array) < 2:
        return None
    kernel = torch.from_numpy(array[-1].astype(np.float32))[None, None]
    if kernel.shape[-1] != kernel.shape[-2] or not torch.isfinite(kernel).all() or kernel.min() < 0:
        raise UserError(f"The last kernel of {path} is not square, or has negative or infinite values.")
    return kernel / kernel.sum().clamp_min(torch.finfo(torch.float32).tiny)
