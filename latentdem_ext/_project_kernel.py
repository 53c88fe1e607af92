"""The projection of a blur kernel: non-negative values with sum 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
from ._registry import Implementation, Operation


def project_kernel(kernel: Tensor) -> Tensor:
    """Non-negative, sum 1: see `reference.project_kernel`. Differentiable.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor.
        ValueError: `kernel` does not have shape (B, 1, K, K).
    """
    result: Tensor = _operation.run(_checks.kernel(kernel))
    return result


def _cuda(kernel: Tensor) -> Tensor:
    kernel = _native.plain(kernel)
    batch, _, size, _ = kernel.shape
    updated = torch.empty_like(kernel)
    numbers = {"batch": batch, "size": size, "side": size, "project": True}
    _native.call_cuda("hqs_finish", response=kernel, data_term=None, updated=updated, **numbers)
    return updated


def _fake(kernel: Tensor) -> Tensor:
    return torch.empty_like(kernel, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> Tensor:
    """(gradient - <gradient, q>) / s where c is the kernel: c is the clipped kernel, s its sum, q = c / s."""
    (kernel,) = ctx.saved_tensors
    clipped = kernel.clamp(min=0)
    total = clipped.sum(dim=(-2, -1), keepdim=True)
    divisor = torch.where(total > 0, total, 1.0)  # 0 / 0 would come back as NaN in second derivatives
    along = (gradient * clipped).sum(dim=(-2, -1), keepdim=True) / divisor
    return torch.where((kernel >= 0) & (total > 0), (gradient - along) / divisor, 0.0)


_operation = Operation(
    "project_kernel",
    "(Tensor kernel) -> Tensor",
    reference=reference.project_kernel,
    fake=_fake,
    backends={"cuda": Implementation(_cuda, _native.cuda_refusal)},
    save=_save,
    backward=_backward,
)
