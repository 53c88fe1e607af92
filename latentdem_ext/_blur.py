"""Circular blur, its adjoint and its transfer function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _dispatch, reference


def kernel_to_otf(kernel: Tensor, shape: tuple[int, int]) -> Tensor:
    """Transfer function (B, 1, H, W // 2 + 1) of a kernel (B, 1, K, K): see `reference.kernel_to_otf`.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor, or `shape` not a pair of integers.
        ValueError: `kernel` has another shape or is larger than the lattice.
    """
    size = _checks.kernel(kernel).shape[-1]
    height, width = _checks.lattice("shape", shape)
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
    return _blur(x, kernel)


def blur_adjoint(y: Tensor, kernel: Tensor) -> Tensor:
    """Adjoint of `blur` in its first argument: see `reference.blur_adjoint`.

    Differentiable in both arguments.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _checks.blur_arguments("y", y, kernel)
    return _blur_adjoint(y, kernel)


@torch.library.custom_op("latentdem::blur", mutates_args=(), schema="(Tensor x, Tensor kernel) -> Tensor")
def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    return _dispatch.run("blur", x=x, kernel=kernel).contiguous()


@torch.library.custom_op(
    "latentdem::blur_adjoint", mutates_args=(), schema="(Tensor y, Tensor kernel) -> Tensor"
)
def _blur_adjoint(y: Tensor, kernel: Tensor) -> Tensor:
    return _dispatch.run("blur_adjoint", y=y, kernel=kernel).contiguous()


# Registered, although only gradients use it: PyTorch 2.6 cannot trace a Fourier transform.
@torch.library.custom_op(
    "latentdem::blur_kernel_gradient",
    mutates_args=(),
    schema="(Tensor x, Tensor gradient, SymInt kernel_size) -> Tensor",
)
def kernel_gradient(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    """Adjoint of `blur` in its second argument: see `reference.blur_kernel_gradient`."""
    return reference.blur_kernel_gradient(x, gradient, kernel_size).contiguous()


@kernel_gradient.register_fake
def _(x: Tensor, gradient: Tensor, kernel_size: int) -> Tensor:
    return x.new_empty(x.shape[0], 1, kernel_size, kernel_size)


@_blur.register_fake
@_blur_adjoint.register_fake
def _(image: Tensor, kernel: Tensor) -> Tensor:
    return torch.empty_like(image, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _blur_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, kernel = ctx.saved_tensors
    by_image, by_kernel = ctx.needs_input_grad
    return (
        _blur_adjoint(gradient, kernel) if by_image else None,
        kernel_gradient(x, gradient, kernel.shape[-1]) if by_kernel else None,
    )


def _adjoint_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    y, kernel = ctx.saved_tensors
    by_image, by_kernel = ctx.needs_input_grad
    return (
        _blur(gradient, kernel) if by_image else None,
        # <gradient, A^T y> = <A gradient, y>
        kernel_gradient(gradient, y, kernel.shape[-1]) if by_kernel else None,
    )


def _save_images(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _kernel_gradient_backward(ctx: Any, kernel: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    # <kernel, blur_kernel_gradient(x, gradient)> = <blur(x, kernel), gradient>
    x, gradient = ctx.saved_tensors
    by_x, by_gradient, _ = ctx.needs_input_grad
    return (
        _blur_adjoint(gradient, kernel) if by_x else None,
        _blur(x, kernel) if by_gradient else None,
        None,
    )


_blur.register_autograd(_blur_backward, setup_context=_save)
_blur_adjoint.register_autograd(_adjoint_backward, setup_context=_save)
kernel_gradient.register_autograd(_kernel_gradient_backward, setup_context=_save_images)
