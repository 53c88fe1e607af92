"""The `forward` of the modules of an autoencoder while it is accelerated.

They call their submodules, so hooks and adapters on those keep working.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input
from torch.utils.checkpoint import checkpoint

from .. import _winograd
from .._group_norm_silu import group_norm_silu
from .._upsample_conv import upsample_conv


def normalise_and_activate(self: nn.GroupNorm, x: Tensor) -> Tensor:
    """GroupNorm and the SiLU after it."""
    return group_norm_silu(x, self.num_groups, self.weight, self.bias, self.eps)


def upsample_and_convolve(self: nn.Conv2d, x: Tensor) -> Tensor:
    """Nearest upsampling by 2 and the convolution after it."""
    return upsample_conv(x, self.weight, self.bias)


def identity(self: nn.Module, x: Tensor) -> Tensor:
    """The `forward` of a module whose work another one does."""
    return x


def diffusers_upsample(self: Any, hidden_states: Tensor, output_size: Any = None, *_: Any, **__: Any) -> Tensor:
    """`Upsample2D`; `output_size` is given where it is not twice that of the input."""
    if output_size is None:
        result: Tensor = self.conv(hidden_states)
        return result
    fine = F.interpolate(hidden_states, size=output_size, mode="nearest")
    return F.conv2d(fine, self.conv.weight, self.conv.bias, padding=1)


def residual_block(self: Any, input_tensor: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """`ResnetBlock2D` of an autoencoder, whose norms activate as well."""
    h = self.conv1(self.norm1(input_tensor))
    h = self.conv2(self.dropout(self.norm2(h)))
    x = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
    # In place, because h is used nowhere else and the gradient of a convolution does not need its result.
    h += x
    return h if self.output_scale_factor == 1 else h / self.output_scale_factor


def checkpointed_residual_block(self: Any, input_tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    """`residual_block`, of which only the input is kept for the gradient."""
    return _checkpointed(residual_block, self, input_tensor)


def checkpointed(self: nn.Module, x: Tensor) -> Tensor:
    """A module of one argument, of which only the input is kept for the gradient."""
    return _checkpointed(type(self).forward, self, x)


def _checkpointed(function: Any, module: nn.Module, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        result: Tensor = function(module, x)
        return result
    return checkpoint(function, module, x, use_reentrant=False)


def convolve_3_x_3(self: nn.Conv2d, x: Tensor) -> Tensor:
    """`convolve` with padding of 1, stride 1 and one group."""
    if _winograd.suits(x, self.weight, self.bias):
        return _winograd.convolve(x, self.weight, self.bias)
    return convolve(self, x)


def convolve(self: nn.Conv2d, x: Tensor) -> Tensor:
    """`Conv2d` that keeps its input only where its weight requires a gradient."""
    weight, bias = self.weight, self.bias
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    if learns or not x.requires_grad or not torch.is_grad_enabled():
        return self._conv_forward(x, weight, bias)
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    result: Tensor = _FrozenConvolution.apply(
        x, weight, bias, self.stride, self.padding, self.dilation, self.groups
    )
    return result


class _FrozenConvolution(torch.autograd.Function):
    """A convolution that is differentiated in its input alone."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, *ctx.geometry = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return conv2d_input(ctx.shape, weight, grad, *ctx.geometry), *[None] * 6
