"""Group normalisation followed by SiLU."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _checks, _compiled, _native, reference
from ._registry import Implementation, Operation

_CPP_REFUSAL = partial(_native.cpp_refusal, dtypes=(torch.float32, torch.bfloat16))


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """silu(group_norm(x)) of (B, C, ...): see `reference.group_norm_silu`.

    float16, bfloat16, float32 or float64; statistics and arithmetic of half precision are float32.
    Differentiable once, in x, weight and bias. The result is laid out as x is: channels last or contiguous, and
    has its dtype, also under autocast; weight and bias may be float32 for any half x.

    Raises:
        TypeError: an argument is not a floating-point tensor, the dtypes do not go together, or `groups` or
            `eps` is not a number.
        ValueError: shapes or devices do not go together, `groups` does not divide C, or `eps` is negative.
    """
    _checks.tensor("x", x, _checks.REAL_DTYPES)
    if x.dim() < 2:
        raise ValueError(f"x must have a channel dimension, its shape is {tuple(x.shape)}")
    channels = x.shape[1:2]
    _checks.parameter("weight", weight, "x", x, channels)
    _checks.companion("bias", bias, "weight", weight, channels)
    _checks.integer("groups", groups, 1)
    _checks.number("eps", eps, 0.0)
    if channels[0] % groups:
        raise ValueError(f"groups must divide the {channels[0]} channels of x, it is {groups}")
    result: Tensor = _forward.run(x, groups, weight, bias, eps)[0]
    return result


# The forward operation returns the result and, for the backward operation, the mean and 1 / standard deviation
# (B, groups) of each group. The backward operation returns the gradients of x, weight and bias.


def _reference(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    x = _dense(x)
    if x.numel() == 0:
        mean = x.new_zeros(x.shape[0], groups, dtype=_statistics_dtype(x))
        return torch.empty_like(x), mean, mean.clone()
    variance, mean = torch.var_mean(_grouped(x, groups), dim=-1, correction=0)
    y = reference.group_norm_silu(x, groups, weight, bias, eps)
    return _like(x, y), mean, torch.rsqrt(variance + eps)


def _reference_backward(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula of csrc/cpu/group_norm_silu_backward.cpp."""
    x = _dense(x)
    if x.numel() == 0:
        return torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
    normal = (_grouped(x, groups) - mean[..., None]) * rstd[..., None]
    by_channel = (x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    factor, shift = (reference.arithmetic(value)[None, :, None] for value in (weight, bias))
    u = normal.view(by_channel) * factor + shift
    s = torch.sigmoid(u)
    d = reference.arithmetic(_like(x, grad)).reshape(by_channel) * s * (1 + u * (1 - s))
    grad_bias, grad_weight = d.sum((0, 2)), (d * normal.view(by_channel)).sum((0, 2))
    d = (d * factor).reshape(normal.shape)
    centred = d - d.mean(-1, keepdim=True) - normal * (d * normal).mean(-1, keepdim=True)
    grad_x = (centred * rstd[..., None]).reshape(x.shape).to(x.dtype)
    return _like(x, grad_x), grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


def _cpp(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    x = _dense(x)
    y = torch.empty_like(x)
    mean = x.new_empty(x.shape[0], groups, dtype=torch.float32)
    rstd = torch.empty_like(mean)
    weight, bias = (_native.plain(value.float()) for value in (weight, bias))
    results = {"y": y, "mean": mean, "rstd": rstd}
    _native.call_cpp("group_norm_silu", x=x, weight=weight, bias=bias, **results, eps=eps, **_sizes(x, groups))
    return y, mean, rstd


def _cpp_backward(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x, dtype = _dense(x), weight.dtype
    grad_x = torch.empty_like(x)
    grad_weight, grad_bias = x.new_empty(2, *x.shape[:2], dtype=torch.float64)
    arrays = {"weight": weight, "bias": bias, "mean": mean, "rstd": rstd}
    arrays = {name: _native.plain(value.float()) for name, value in arrays.items()}
    arrays |= {"grad": _like(x, grad), "x": x}
    arrays |= {"grad_x": grad_x, "grad_weight": grad_weight, "grad_bias": grad_bias}
    _native.call_cpp("group_norm_silu_backward", **arrays, **_sizes(x, groups))
    return grad_x, grad_weight.sum(0).to(dtype), grad_bias.sum(0).to(dtype)


def _triton(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    from latentdem_kernels import group_norm_silu as kernels

    x = _dense(x)
    y = torch.empty_like(x)
    mean = x.new_empty(x.shape[0], groups, dtype=torch.float32)
    rstd = torch.empty_like(mean)
    with torch.cuda.device_of(x):
        kernels.launch(x, _native.plain(weight), _native.plain(bias), y, mean, rstd, eps)
    return y, mean, rstd


def _triton_backward(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from latentdem_kernels import group_norm_silu as kernels

    x = _dense(x)
    weight, bias, mean, rstd = (_native.plain(value) for value in (weight, bias, mean, rstd))
    grad_x = torch.empty_like(x)
    grad_weight = mean.new_empty(x.shape[:2])
    grad_bias = torch.empty_like(grad_weight)
    with torch.cuda.device_of(x):
        kernels.launch_backward(_like(x, grad), x, weight, bias, mean, rstd, grad_x, grad_weight, grad_bias)
    return grad_x, grad_weight.sum(0).to(weight.dtype), grad_bias.sum(0).to(bias.dtype)


def _fake(x: Tensor, groups: int, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty(x.shape[0], groups, dtype=_statistics_dtype(x))
    return torch.empty_like(_dense(x)), mean, torch.empty_like(mean)


def _fake_backward(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(_dense(x)), torch.empty_like(weight), torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, ctx.groups, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])


def _gradient(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _backward.run(grad, x, ctx.groups, weight, bias, mean, rstd)
    return grad_x, None, grad_weight, grad_bias, None


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def _dense(x: Tensor) -> Tensor:
    """x itself where it is channels last or contiguous, else a contiguous copy."""
    x = x.resolve_neg()
    return x if _channels_last(x) else x.contiguous()


def _like(x: Tensor, value: Tensor) -> Tensor:
    """`value` laid out as x, which is channels last or contiguous."""
    value = value.resolve_neg()
    return value.movedim(1, -1).contiguous().movedim(-1, 1) if _channels_last(x) else value.contiguous()


def _grouped(x: Tensor, groups: int) -> Tensor:
    """(B, groups, C / groups * ...), at least float32."""
    return reference.arithmetic(x).reshape(x.shape[0], groups, x.shape[1] // groups * math.prod(x.shape[2:]))


def _statistics_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _sizes(x: Tensor, groups: int) -> dict[str, Any]:
    return {
        "batch": x.shape[0],
        "channels": x.shape[1],
        "spatial": math.prod(x.shape[2:]),
        "groups": groups,
        "channels_last": _channels_last(x),
        "bfloat16": x.dtype == torch.bfloat16,
    }


_forward = Operation(
    "group_norm_silu",
    "(Tensor x, SymInt groups, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)",
    reference=_reference,
    fake=_fake,
    backends={
        "cpp": Implementation(_cpp, _CPP_REFUSAL),
        "compiled": Implementation(_compiled.Program(_reference), _compiled.refusal),
        "triton": Implementation(_triton, _native.triton_refusal),
    },
    save=_save,
    backward=_gradient,
    keeps_layout=True,
)
_backward = Operation(
    "group_norm_silu_backward",
    "(Tensor grad, Tensor x, SymInt groups, Tensor weight, Tensor bias, Tensor mean, Tensor rstd)"
    " -> (Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=_fake_backward,
    backends={
        "cpp": Implementation(_cpp_backward, _CPP_REFUSAL),
        "compiled": Implementation(_compiled.Program(_reference_backward), _compiled.refusal),
        "triton": Implementation(_triton_backward, _native.triton_refusal),
    },
    keeps_layout=True,
    recorded_as="group_norm_silu",
)
