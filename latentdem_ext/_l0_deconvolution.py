"""Deconvolution with few edges: the image step of kernel estimation from gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
from ._registry import Implementation, Operation

_MOST_STEPS = 1000  # of one native call, which nothing can interrupt


def l0_deconvolution(
    y: Tensor, kernel: Tensor, penalty: Tensor, weight: Tensor, growth: Tensor, last_weight: Tensor
) -> Tensor:
    """argmin_x ||y - k*x||^2 + penalty ||D x||_0 by splitting: see `reference.l0_deconvolution`.

    y (B, C, H, W), kernel (B, 1, K, K), all others (B,). The weight of a sample grows by the factor `growth` up
    to `last_weight`, in 1000 steps at most; on a CPU all of them are one native call. Not differentiable.

    Raises:
        TypeError: an argument is not a floating-point tensor, y not float32 or float64, or the dtypes of y and
            kernel differ.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, `penalty` or
            `weight` is not above 0 or `growth` not above 1, it takes more steps, or an argument requires a
            gradient.
    """
    _checks.blur_arguments("y", y, kernel)
    numbers = {"penalty": penalty, "weight": weight, "growth": growth, "last_weight": last_weight}
    for name, value in numbers.items():
        _checks.per_sample(name, value, "y", y)
    _checks.no_gradient("l0_deconvolution", y=y, kernel=kernel, **numbers)
    for name, value, least in (("penalty", penalty, 0), ("weight", weight, 0), ("growth", growth, 1)):
        if not bool((value > least).all()):
            raise ValueError(f"{name} must be above {least}")
    if not bool((weight.double() * growth.double() ** _MOST_STEPS >= last_weight).all()):
        raise ValueError(f"growth must take weight to last_weight in {_MOST_STEPS} steps")
    result: Tensor = _operation.run(y, kernel, penalty, weight, growth, last_weight)
    return result


def _cpp(
    y: Tensor, kernel: Tensor, penalty: Tensor, weight: Tensor, growth: Tensor, last_weight: Tensor
) -> Tensor:
    batch, channels, height, width = y.shape
    x = torch.empty_like(y, memory_format=torch.contiguous_format)
    arrays = {
        "y": y,
        "otf": reference.kernel_to_otf(kernel, (height, width)),
        "penalty": penalty,
        "weight": weight,
        "growth": growth,
        "last_weight": last_weight,
    }
    _native.call_cpp(
        "l0_deconvolution",
        **_native.plain_arguments(arrays, double=("penalty", "weight", "growth", "last_weight")),
        x=x,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
    )
    return x


def _fake(y: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(y, memory_format=torch.contiguous_format)


_operation = Operation(
    "l0_deconvolution",
    "(Tensor y, Tensor kernel, Tensor penalty, Tensor weight, Tensor growth, Tensor last_weight) -> Tensor",
    reference=reference.l0_deconvolution,
    fake=_fake,
    backends={"cpp": Implementation(_cpp, _native.plane_refusal)},
)
