"""Circular blur, its adjoint and its transfer function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _spectra, reference
from ._registry import Implementation, Operation


def kernel_to_otf(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function (B, 1, H, W // 2 + 1) of a kernel (B, 1, K, K): see `reference.kernel_to_otf`.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor, or `shape` not a pair of integers.
        ValueError: `kernel` has another shape or is larger than the image.
    """
    size = _checks.kernel(kernel).shape[-1]
    height, width = _checks.image_size("shape", shape)
    _checks.kernel_size("kernel", size, height, width)
    return reference.kernel_to_otf(kernel, (height, width))


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """k * x, circular true convolution of (B, C, H, W) with (B, 1, K, K): see `reference.blur`.

    Differentiable in both arguments.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _checks.blur_arguments("x", x, kernel)
    result: Tensor = _blur.run(x, kernel)
    return result


def blur_adjoint(y: Tensor, kernel: Tensor) -> Tensor:
    """Adjoint of `blur` in its first argument: see `reference.blur_adjoint`.

    Differentiable in both arguments.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _checks.blur_arguments("y", y, kernel)
    result: Tensor = _adjoint.run(y, kernel)
    return result


def kernel_gradient(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """Adjoint of `blur` in its second argument: see `reference.blur_kernel_gradient`."""
    result: Tensor = _kernel_gradient.run(x, gradient, kernel_size)
    return result


def _blur_cpp(x: Tensor, kernel: Tensor) -> Tensor:
    rows = _spectra.transform_rows(x)
    _spectra.blur_rows(rows, kernel, x.shape[-1])
    return torch.fft.irfft(rows, n=x.shape[-1])


def _adjoint_cpp(y: Tensor, kernel: Tensor) -> Tensor:
    rows = _spectra.transform_rows(y)
    _spectra.blur_rows(rows, kernel, y.shape[-1], adjoint=True)
    return torch.fft.irfft(rows, n=y.shape[-1])


def _fake(image: Tensor, kernel: Tensor) -> Tensor:
    return torch.empty_like(image, memory_format=torch.contiguous_format)


def _fake_kernel(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    return x.new_empty(x.shape[0], 1, kernel_size, kernel_size)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _blur_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, kernel = ctx.saved_tensors
    by_image, by_kernel = ctx.needs_input_grad
    return (
        _adjoint.run(gradient, kernel) if by_image else None,
        kernel_gradient(x, gradient, kernel.shape[-1]) if by_kernel else None,
    )


def _adjoint_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    y, kernel = ctx.saved_tensors
    by_image, by_kernel = ctx.needs_input_grad
    return (
        _blur.run(gradient, kernel) if by_image else None,
        # <gradient, A^T y> = <A gradient, y>
        kernel_gradient(gradient, y, kernel.shape[-1]) if by_kernel else None,
    )


def _kernel_gradient_backward(ctx: Any, kernel: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    # <kernel, blur_kernel_gradient(x, gradient)> = <blur(x, kernel), gradient>
    x, gradient = ctx.saved_tensors
    by_x, by_gradient, _ = ctx.needs_input_grad
    return (
        _adjoint.run(gradient, kernel) if by_x else None,
        _blur.run(x, kernel) if by_gradient else None,
        None,
    )


_blur = Operation(
    "blur",
    "(Tensor x, Tensor kernel) -> Tensor",
    reference=reference.blur,
    fake=_fake,
    backends={"cpp": Implementation(_blur_cpp, _spectra.cpp_refusal)},
    save=_save,
    backward=_blur_backward,
)
_adjoint = Operation(
    "blur_adjoint",
    "(Tensor y, Tensor kernel) -> Tensor",
    reference=reference.blur_adjoint,
    fake=_fake,
    backends={"cpp": Implementation(_adjoint_cpp, _spectra.cpp_refusal)},
    save=_save,
    backward=_adjoint_backward,
)
# An operation although only gradients use it: PyTorch 2.6 cannot trace a Fourier transform.
_kernel_gradient = Operation(
    "blur_kernel_gradient",
    "(Tensor x, Tensor gradient, SymInt kernel_size) -> Tensor",
    reference=reference.blur_kernel_gradient,
    fake=_fake_kernel,
    save=_save,
    backward=_kernel_gradient_backward,
)
