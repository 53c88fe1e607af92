"""The Triton kernels behind the signatures of `reference`: allocation, layout, device.

Triton is imported at the first launch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _backends


def refusal(name: str, tensor: Tensor) -> str:
    """Why the kernels do not take the tensor, "" if they do.

    CPU tensors are for tests: they are taken on request only, and by Triton's interpreter.
    """
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not float16, bfloat16 or float32"
    on_request = tensor.device.type == "cpu" and _backends.triton_interprets()
    if tensor.device.type != "cuda" and not (on_request and _backends.requested_backend() == "triton"):
        return f"{name} is on {tensor.device}, not on a CUDA device"
    return ""


def dps_step(
    z_t: Tensor,
    eps: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    eps_uncond: Tensor | None = None,
    guidance: float = 1.0,
    eta: float = 0.0,
    noise: Tensor | None = None,
    gradient: Tensor | None = None,
    step_size: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`reference.dps_step` for float16, bfloat16 and float32; contiguous results."""
    from latentdem_kernels import dps_step as kernels

    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    z0 = torch.empty_like(z_prev)
    given = (z_t, eps, eps_uncond, noise, gradient, abar_t, abar_prev, step_size)
    held = [None if tensor is None else tensor.contiguous() for tensor in given]
    if z_t.numel():
        with torch.cuda.device_of(z_t):
            kernels.launch(*held, z_prev, z0, guidance, eta)
    return z_prev, z0


def renoise(z_t: Tensor, z0: Tensor, abar_t: Tensor, abar_prev: Tensor, noise: Tensor, fresh: Tensor) -> Tensor:
    """`reference.renoise` for float16, bfloat16 and float32; a contiguous result."""
    from latentdem_kernels import renoise as kernels

    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    if z_t.numel():
        held = [tensor.contiguous() for tensor in (z_t, z0, abar_t, abar_prev, noise, fresh)]
        with torch.cuda.device_of(z_t):
            kernels.launch(*held, z_prev)
    return z_prev


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.group_norm_silu` of a contiguous or channels-last x that is not empty.

    Returns:
        the result, laid out as x, and the mean and 1 / standard deviation (B, groups) of each group, float32.
    """
    from latentdem_kernels import group_norm_silu as kernels

    weight, bias = weight.contiguous(), bias.contiguous()
    y = torch.empty_like(x)
    mean = x.new_empty(x.shape[0], groups, dtype=torch.float32)
    rstd = torch.empty_like(mean)
    with torch.cuda.device_of(x):
        kernels.launch(x, weight, bias, y, mean, rstd, eps)
    return y, mean, rstd


def group_norm_silu_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; `grad` is laid out as x, mean and rstd are those of the forward pass."""
    from latentdem_kernels import group_norm_silu as kernels

    weight, bias, mean, rstd = (value.contiguous() for value in (weight, bias, mean, rstd))
    grad_x = torch.empty_like(x)
    grad_weight = mean.new_empty(x.shape[:2])
    grad_bias = torch.empty_like(grad_weight)
    with torch.cuda.device_of(x):
        kernels.launch_backward(grad, x, weight, bias, mean, rstd, grad_x, grad_weight, grad_bias)
    return grad_x, grad_weight.sum(0).to(weight.dtype), grad_bias.sum(0).to(bias.dtype)


def upsample_conv(x: Tensor, kernel: Tensor, bias: Tensor | None, layout: torch.memory_format) -> Tensor:
    """`reference.upsample_conv` with the folded weight, `kernel` (C, O, 4, 4); nothing is empty.

    Returns:
        (B, O, 2H, 2W) in `layout`.
    """
    from latentdem_kernels import upsample_conv as kernels

    shape = (x.shape[0], kernel.shape[1], 2 * x.shape[2], 2 * x.shape[3])
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
    bias = None if bias is None else bias.contiguous()
    with torch.cuda.device_of(x):
        kernels.launch(x, kernel, bias, y, forward=True)
    return y


def upsample_conv_input_gradient(grad: Tensor, kernel: Tensor, layout: torch.memory_format) -> Tensor:
    """Gradient (B, C, H, W) in x from `grad` (B, O, 2H, 2W), in `layout`; nothing is empty."""
    from latentdem_kernels import upsample_conv as kernels

    shape = (grad.shape[0], kernel.shape[0], grad.shape[2] // 2, grad.shape[3] // 2)
    grad_x = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    with torch.cuda.device_of(grad):
        kernels.launch(grad, kernel, None, grad_x, forward=False)
    return grad_x
