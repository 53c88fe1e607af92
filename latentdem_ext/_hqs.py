"""The M-step: half-quadratic splitting updates of a blur kernel on a lattice of its own size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _dispatch, reference
from .reference import HQSFactors

_MAX_ITERATIONS = 1000  # one native call, which nothing can interrupt


def hqs_prepare(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    *,
    per_channel: bool = False,
    y_hat: Tensor | None = None,
) -> HQSFactors:
    """Everything `hqs_kernel_update` needs to know of the images: see `reference.hqs_prepare`.

    x (B, S, C, H, W) holds S posterior samples of each image, y (B, C, H, W), weight (B,) > 0 on the scale of
    sum |F x|^2 (the paper's delta sigma^2, delta = 5e6). Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, the dtypes differ, or `kernel_size` is not an
            integer.
        ValueError: shapes or devices do not go together, K is not between 1 and min(H, W), or an argument
            requires a gradient.
    """
    _checks.tensor("y", y, _checks.FFT_DTYPES, 4)
    _checks.tensor("x", x, _checks.FFT_DTYPES, 5)
    _checks.companion("x", x, "y", y, (y.shape[0], x.shape[1], *y.shape[1:]))
    if x.shape[1] < 1 or x.shape[2] < 1:
        raise ValueError(f"x must hold at least one sample and one channel, its shape is {tuple(x.shape)}")
    _checks.per_sample("weight", weight, "y", y)
    _checks.integer("kernel_size", kernel_size, 1)
    _checks.kernel_size("kernel_size", kernel_size, y.shape[-2], y.shape[-1])
    _checks.flag("per_channel", per_channel)
    if y_hat is not None:
        _checks.spectrum("y_hat", y_hat, "y", y)
    _checks.no_gradient("hqs_prepare", x=x, y=y, weight=weight, y_hat=y_hat)
    return HQSFactors(*_prepare(x, y, weight, kernel_size, per_channel, y_hat))


def hqs_kernel_update(
    kernel: Tensor, factors: HQSFactors, *, project: bool = True, iterations: int = 1
) -> Tensor:
    """Updates of a kernel (B, 1, K, K), projected unless told not to: see `reference.hqs_kernel_update`.

    Where nothing happens between the `iterations` they are one call and stay in the processor's cache. Not
    differentiable.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor, `factors` not what `hqs_prepare` returns, their
            dtypes differ, or `iterations` is not an integer.
        ValueError: `kernel` is not of the shape or on the device of `factors.data_term`, `iterations` is
            not between 1 and 1000, or an argument requires a gradient.
    """
    _checks.kernel(kernel)
    if not isinstance(factors, HQSFactors):
        raise TypeError(f"factors must be what hqs_prepare returns, not {type(factors).__name__}")
    # In this order the error says what is wrong with the kernel, of which the factors know the shape.
    data_term, gains = factors
    _checks.tensor("factors.data_term", data_term, _checks.FFT_DTYPES, 4)
    _checks.companion("kernel", kernel, "factors.data_term", data_term)
    _checks.tensor("factors.filter", gains, (kernel.dtype,), 4)
    side = gains.shape[-2]
    _checks.companion("factors.filter", gains, "kernel", kernel, (kernel.shape[0], 1, side, side // 2 + 1))
    if side < 2 * kernel.shape[-1] - 1:
        raise ValueError(f"factors.filter has {side} points a side, too few for K = {kernel.shape[-1]}")
    _checks.flag("project", project)
    _checks.integer("iterations", iterations, 1, _MAX_ITERATIONS)
    _checks.no_gradient(
        "hqs_kernel_update", **{"kernel": kernel, "factors.data_term": data_term, "factors.filter": gains}
    )
    return _update(kernel, data_term, gains, project, iterations)


def project_kernel(kernel: Tensor) -> Tensor:
    """Non-negative, sum 1: see `reference.project_kernel`. Differentiable.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor.
        ValueError: `kernel` does not have shape (B, 1, K, K).
    """
    return _project(_checks.kernel(kernel))


@torch.library.custom_op(
    "latentdem::hqs_prepare",
    mutates_args=(),
    schema="(Tensor x, Tensor y, Tensor weight, SymInt kernel_size, bool per_channel, Tensor? y_hat)"
    " -> (Tensor, Tensor)",
)
def _prepare(
    x: Tensor, y: Tensor, weight: Tensor, kernel_size: int, per_channel: bool, y_hat: Tensor | None
) -> tuple[Tensor, Tensor]:
    data_term, gains = _dispatch.run(
        "hqs_prepare",
        x=x,
        y=y,
        weight=weight,
        kernel_size=kernel_size,
        per_channel=per_channel,
        y_hat=y_hat,
    )
    return data_term.contiguous(), gains


@_prepare.register_fake
def _(
    x: Tensor, y: Tensor, weight: Tensor, kernel_size: int, per_channel: bool, y_hat: Tensor | None
) -> tuple[Tensor, Tensor]:
    side = reference.lattice_side(kernel_size, x.device)
    return (
        y.new_empty(y.shape[0], 1, kernel_size, kernel_size),
        y.new_empty(y.shape[0], 1, side, side // 2 + 1),
    )


@torch.library.custom_op(
    "latentdem::hqs_kernel_update",
    mutates_args=(),
    schema="(Tensor kernel, Tensor data_term, Tensor filter, bool project, SymInt iterations) -> Tensor",
)
def _update(kernel: Tensor, data_term: Tensor, filter: Tensor, project: bool, iterations: int) -> Tensor:
    factors = HQSFactors(data_term, filter)
    return _dispatch.run(
        "hqs_kernel_update", kernel=kernel, factors=factors, project=project, iterations=iterations
    ).contiguous()


@_update.register_fake
def _(kernel: Tensor, data_term: Tensor, filter: Tensor, project: bool, iterations: int) -> Tensor:
    return torch.empty_like(kernel, memory_format=torch.contiguous_format)


@torch.library.custom_op("latentdem::project_kernel", mutates_args=(), schema="(Tensor kernel) -> Tensor")
def _project(kernel: Tensor) -> Tensor:
    return _dispatch.run("project_kernel", kernel=kernel).contiguous()


@_project.register_fake
def _(kernel: Tensor) -> Tensor:
    return torch.empty_like(kernel, memory_format=torch.contiguous_format)


def _save_projection(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _project_backward(ctx: Any, gradient: Tensor) -> Tensor:
    """Of q = c / s, c the clipped kernel, s its sum: (gradient - <gradient, q>) / s where c is the kernel."""
    (kernel,) = ctx.saved_tensors
    clipped = kernel.clamp(min=0)
    total = clipped.sum(dim=(-2, -1), keepdim=True)
    divisor = torch.where(total > 0, total, 1.0)  # 0 / 0 would come back as NaN in second derivatives
    along = (gradient * clipped).sum(dim=(-2, -1), keepdim=True) / divisor
    return torch.where((kernel >= 0) & (total > 0), (gradient - along) / divisor, 0.0)


_project.register_autograd(_project_backward, setup_context=_save_projection)
