"""Data fidelity of a blurred image, and the closed-form proximal step that minimises it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _dispatch
from ._blur import blur, blur_adjoint, kernel_gradient
from .reference import Fidelity


def blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, *, y_hat: Tensor | None = None) -> Fidelity:
    """||y - k*x||^2 (B,), its gradient in x and the gluing target: see `reference.blur_fidelity`.

    A caller that meets the same `y` at every step passes `y_hat = torch.fft.rfft2(y)`, kept from the first.
    All results are differentiable in x, kernel and y; for the norm and x that costs nothing.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, or `y_hat`
            requires a gradient.
    """
    _check("blur_fidelity", "x", x, kernel, y, y_hat)
    return Fidelity(*_blur_fidelity(x, kernel, y, y_hat))


def blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, *, y_hat: Tensor | None = None) -> Tensor:
    """argmin_x ||y - k*x||^2 + rho ||x - x0||^2 with rho (B,) > 0: see `reference.blur_proximal`.

    A caller that meets the same `y` at every step passes `y_hat = torch.fft.rfft2(y)`, kept from the first.
    Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, or an argument
            requires a gradient.
    """
    _check("blur_proximal", "x0", x0, kernel, y, y_hat)
    _checks.per_sample("rho", rho, "x0", x0)
    _checks.no_gradient("blur_proximal", x0=x0, kernel=kernel, y=y, rho=rho)
    return _blur_proximal(x0, kernel, y, rho, y_hat)


def _check(operation: str, name: str, x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> None:
    _checks.blur_arguments(name, x, kernel)
    _checks.companion("y", y, name, x)
    if y_hat is not None:
        _checks.spectrum("y_hat", y_hat, "y", y)
        _checks.no_gradient(operation, y_hat=y_hat)


@torch.library.custom_op(
    "latentdem::blur_fidelity",
    mutates_args=(),
    schema="(Tensor x, Tensor kernel, Tensor y, Tensor? y_hat) -> (Tensor, Tensor, Tensor)",
)
def _blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    norm2, gradient, glued = _dispatch.run("blur_fidelity", x=x, kernel=kernel, y=y, y_hat=y_hat)
    return norm2, gradient.contiguous(), glued.contiguous()


@_blur_fidelity.register_fake
def _(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    image = torch.empty_like(x, memory_format=torch.contiguous_format)
    return x.new_empty(x.shape[0]), image, torch.empty_like(image)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, kernel, y, _ = inputs
    ctx.save_for_backward(x, kernel, y, output[1])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, by_norm2: Tensor | None, by_gradient: Tensor | None, by_glued: Tensor | None
) -> tuple[Tensor | None, ...]:
    """With A the blur, r = y - A x, c = A^T r: norm2 = <r, r>, gradient = -2 c, glued = x + c."""
    x, kernel, y, gradient = ctx.saved_tensors
    by_x, by_kernel, by_y, _ = ctx.needs_input_grad
    weight = None if by_norm2 is None else by_norm2[:, None, None, None]
    by_correction = None if by_gradient is None else -2 * by_gradient
    if by_glued is not None:
        by_correction = by_glued if by_correction is None else by_correction + by_glued
    if by_correction is None and not by_kernel and not by_y:
        return None if weight is None else weight * gradient, None, None, None

    residual = y - blur(x, kernel)
    by_residual = torch.zeros_like(x) if by_correction is None else blur(by_correction, kernel)
    if weight is not None:
        by_residual = by_residual + 2 * weight * residual
    results: list[Tensor | None] = [None] * 4
    if by_x:
        through_residual = -blur_adjoint(by_residual, kernel)
        results[0] = through_residual if by_glued is None else through_residual + by_glued
    if by_kernel:
        size = kernel.shape[-1]
        gradient_of_kernel = -kernel_gradient(x, by_residual, size)
        if by_correction is not None:
            adjoint_part = kernel_gradient(by_correction, residual, size)
            gradient_of_kernel = gradient_of_kernel + adjoint_part
        results[1] = gradient_of_kernel
    if by_y:
        results[2] = by_residual
    return tuple(results)


_blur_fidelity.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op(
    "latentdem::blur_proximal",
    mutates_args=(),
    schema="(Tensor x0, Tensor kernel, Tensor y, Tensor rho, Tensor? y_hat) -> Tensor",
)
def _blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None) -> Tensor:
    return _dispatch.run("blur_proximal", x0=x0, kernel=kernel, y=y, rho=rho, y_hat=y_hat).contiguous()


@_blur_proximal.register_fake
def _(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None) -> Tensor:
    return torch.empty_like(x0, memory_format=torch.contiguous_format)
