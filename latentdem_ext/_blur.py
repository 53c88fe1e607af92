"""Circular blur, its adjoint and its transfer function."""

from __future__ import annotations

from torch import Tensor

from . import _checks, reference


def kernel_to_otf(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function (B, 1, H, W // 2 + 1) of a kernel (B, 1, K, K): see `reference.kernel_to_otf`.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor.
        ValueError: `kernel` has another shape or is larger than the lattice.
    """
    _checks.kernel_size(_checks.kernel(kernel).shape[-1], *shape)
    return reference.kernel_to_otf(kernel, shape)


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """k * x, circular true convolution of (B, C, H, W) with (B, 1, K, K): see `reference.blur`.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _checks.blur_arguments("x", x, kernel)
    return reference.blur(x, kernel)


def blur_adjoint(y: Tensor, kernel: Tensor) -> Tensor:
    """Adjoint of `blur` in its first argument: see `reference.blur_adjoint`.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _checks.blur_arguments("y", y, kernel)
    return reference.blur_adjoint(y, kernel)
