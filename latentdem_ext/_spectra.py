"""Shared by the native implementations of the Fourier-domain operations.

On a CPU PyTorch (MKL) transforms the rows of the images; the compiled module does the columns and everything
between their two transforms, in blocks that stay in the processor's cache. On a CUDA device torch.fft (cuFFT)
and compiled kernels share the work in the same way where the height is a power of two; else torch.fft
transforms whole images and compiled kernels do the rest. All work goes to the current stream, and nothing waits
for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backends, _native

_THREADS = 256  # numbers that a block of the element-wise CUDA kernels handles at a time
_MAX_PARTS = 1024  # blocks for one image
_COLUMNS = 4  # of a block of the CUDA kernels that transform columns
COLUMN_HEIGHTS = (64, 128, 256, 512, 1024)  # of the images that those kernels take


def cpp_refusal(name: str, image: Tensor, *_: Any) -> str:
    """Why the compiled module does not take the image, "" if it does."""
    refusal = _native.cpp_refusal(name, image)
    if not refusal and _backends.cpu is not None and not _backends.cpu.has_fft(image.shape[-2]):
        return f"{name} has {image.shape[-2]} rows: a prime factor is above 13"
    return refusal


def transform_rows(image: Tensor) -> Tensor:
    """The transforms of the rows of an image, (..., H, W // 2 + 1)."""
    return torch.fft.rfft(image.contiguous()).contiguous()


def transformed_measurement(y: Tensor, y_hat: Tensor | None) -> Tensor:
    """The transforms of the rows of y, or the whole transform where the caller has kept it."""
    return transform_rows(y) if y_hat is None else _native.plain(y_hat)


def blur_rows(rows: Tensor, kernel: Tensor, width: int, **options: Any) -> None:
    """The native pass over transformed rows (B, C, H, W // 2 + 1), in place."""
    batch, channels, height, columns = rows.shape
    kernel_rows = transform_rows(origin_first(kernel, kernel.shape[-1] // 2, width, dim=-1))
    sizes = {"batch": batch, "channels": channels, "height": height, "columns": columns}
    _native.call_cpp("blur", x=rows, kernel=kernel_rows, size=kernel.shape[-1], **sizes, **options)


def origin_first(values: Tensor, origin: int, length: int, dim: int) -> Tensor:
    """`values` along `dim` from `origin` on, zeros up to `length`, then those before the origin."""
    after = values.shape[dim] - origin
    shape = list(values.shape)
    shape[dim] = length
    placed = values.new_zeros(shape)
    placed.narrow(dim, 0, after).copy_(values.narrow(dim, origin, after))
    placed.narrow(dim, length - origin, origin).copy_(values.narrow(dim, 0, origin))
    return placed


def transform(image: Tensor) -> Tensor:
    """The half spectrum of an image on a CUDA device, plain."""
    return _native.plain(torch.fft.rfft2(image))


def parts(points: int) -> int:
    """The number of blocks of an element-wise CUDA kernel for one image."""
    return min(-(-points // _THREADS), _MAX_PARTS)


def column_blocks(columns: int) -> int:
    """The number of blocks of a CUDA kernel that transforms the columns of one plane."""
    return -(-columns // _COLUMNS)
