"""Group normalisation followed by SiLU: checks, choice of the implementation, registration with PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from . import _backends, _checks, _triton_ops, reference


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
    result: Tensor = _operation(x, groups, weight, bias, eps)[0]
    return result


@torch.library.custom_op("latentdem::group_norm_silu", mutates_args=())
def _operation(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and the mean and 1 / standard deviation (B, groups) of each group for the backward pass."""
    x = _dense(x)
    if x.numel() == 0:
        mean = x.new_zeros(x.shape[0], groups, dtype=_statistics_dtype(x))
        return torch.empty_like(x), mean, mean.clone()
    backend = _choose(x)
    if backend == "cpp":
        return _cpp(x, groups, weight, bias, eps)
    if backend == "triton":
        return _triton_ops.group_norm_silu(x, groups, weight, bias, eps)
    variance, mean = torch.var_mean(_grouped(x, groups), dim=-1, correction=0)
    with torch.autocast(x.device.type, enabled=False):
        y = reference.group_norm_silu(x, groups, weight, bias, eps)
    return _like(x, y), mean, torch.rsqrt(variance + eps)


@torch.library.custom_op("latentdem::group_norm_silu_backward", mutates_args=())
def _backward_operation(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    x = _dense(x)
    grad = _like(x, grad)
    if x.numel() == 0:
        return torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
    backend = _choose(x)
    if backend == "cpp":
        return _cpp_backward(grad, x, groups, weight, bias, mean, rstd)
    if backend == "triton":
        return _triton_ops.group_norm_silu_backward(grad, x, weight, bias, mean, rstd)
    return _reference_backward(grad, x, groups, weight, bias, mean, rstd)


def _choose(x: Tensor) -> str:
    return _backends.choose("group_norm_silu", {"cpp": _cpp_refusal(x), "triton": _triton_ops.refusal("x", x)})


def _cpp_refusal(x: Tensor) -> str:
    if x.device.type != "cpu":
        return f"x is on {x.device}, not in CPU memory"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"x is {str(x.dtype).removeprefix('torch.')}, not float32 or bfloat16"
    return ""


def _channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def _dense(x: Tensor) -> Tensor:
    """x itself where it is channels last or contiguous, else a contiguous copy."""
    return x if _channels_last(x) else x.contiguous()


def _like(x: Tensor, value: Tensor) -> Tensor:
    """`value` laid out as x, which is channels last or contiguous."""
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
        "threads": torch.get_num_threads(),
    }


def _cpp(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    weight, bias = weight.float().contiguous(), bias.float().contiguous()
    y = torch.empty_like(x)
    mean = x.new_empty(x.shape[0], groups, dtype=torch.float32)
    rstd = torch.empty_like(mean)
    assert _backends.cpu is not None
    _backends.cpu.group_norm_silu(
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        bias=bias.data_ptr(),
        y=y.data_ptr(),
        mean=mean.data_ptr(),
        rstd=rstd.data_ptr(),
        eps=eps,
        **_sizes(x, groups),
    )
    return y, mean, rstd


def _cpp_backward(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = weight.dtype
    weight, bias, mean, rstd = (value.float().contiguous() for value in (weight, bias, mean, rstd))
    grad_x = torch.empty_like(x)
    grad_weight, grad_bias = x.new_empty(2, *x.shape[:2], dtype=torch.float64)
    assert _backends.cpu is not None
    _backends.cpu.group_norm_silu_backward(
        grad=grad.data_ptr(),
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        bias=bias.data_ptr(),
        mean=mean.data_ptr(),
        rstd=rstd.data_ptr(),
        grad_x=grad_x.data_ptr(),
        grad_weight=grad_weight.data_ptr(),
        grad_bias=grad_bias.data_ptr(),
        **_sizes(x, groups),
    )
    return grad_x, grad_weight.sum(0).to(dtype), grad_bias.sum(0).to(dtype)


def _reference_backward(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula of csrc/cpu/group_norm_silu_backward.cpp."""
    normal = (_grouped(x, groups) - mean[..., None]) * rstd[..., None]
    by_channel = (x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    factor, shift = (reference.arithmetic(value)[None, :, None] for value in (weight, bias))
    u = normal.view(by_channel) * factor + shift
    s = torch.sigmoid(u)
    d = reference.arithmetic(grad).reshape(by_channel) * s * (1 + u * (1 - s))
    grad_bias, grad_weight = d.sum((0, 2)), (d * normal.view(by_channel)).sum((0, 2))
    d = (d * factor).reshape(normal.shape)
    centred = d - d.mean(-1, keepdim=True) - normal * (d * normal).mean(-1, keepdim=True)
    grad_x = (centred * rstd[..., None]).reshape(x.shape).to(x.dtype)
    return _like(x, grad_x), grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


@_operation.register_fake
def _(x: Tensor, groups: int, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.new_empty(x.shape[0], groups, dtype=_statistics_dtype(x))
    return torch.empty_like(_dense(x)), mean, torch.empty_like(mean)


@_backward_operation.register_fake
def _(
    grad: Tensor, x: Tensor, groups: int, weight: Tensor, bias: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(_dense(x)), torch.empty_like(weight), torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, ctx.groups, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _backward_operation(grad, x, ctx.groups, weight, bias, mean, rstd)
    return grad_x, None, grad_weight, grad_bias, None


_operation.register_autograd(_backward, setup_context=_save)
