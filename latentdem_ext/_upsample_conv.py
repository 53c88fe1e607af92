"""Nearest upsampling and a 3 x 3 convolution at once.

An upsampled image repeats every pixel twice, so of the three taps of a row two always meet the same pixel.
Adding up the taps that meet leaves a 2 x 2 kernel for each of the four parities of the output: 4/9 of the
multiplications, and the large image is never read. The four kernels together are one 4 x 4 kernel
(`_folded_weights`): the operation is a transposed convolution of stride 2 with it, and the gradient of its
input a convolution of stride 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from . import _backends, _checks, _native, _winograd, reference
from ._folded_weights import folded
from ._registry import Implementation, Operation


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """3 x 3 convolution (O, C, 3, 3) of the 2x upsampled (B, C, H, W): see `reference.upsample_conv`.

    float16, bfloat16, float32 or float64. Differentiable once, in x, weight and bias. The result is laid out as
    x is, channels last or contiguous, and has its dtype, also under autocast; weight and bias may be float32
    for any half x. What is computed from a weight that requires no gradient is kept until the weight changes;
    changes made through `weight.data` are not seen. Weights must be below 16000 for a float16 x: sums of four
    are formed.

    Raises:
        TypeError: an argument is not a floating-point tensor, or the dtypes do not go together.
        ValueError: shapes or devices do not go together.
    """
    _checks.tensor("x", x, _checks.REAL_DTYPES, 4)
    _checks.tensor("weight", weight, _checks.REAL_DTYPES, 4)
    _checks.parameter("weight", weight, "x", x, (weight.shape[0], x.shape[1], 3, 3))
    if bias is not None:
        _checks.companion("bias", bias, "weight", weight, weight.shape[:1])
    result: Tensor = _forward.run(x, weight, bias)
    return result


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    shape = _output_shape(x, weight)
    if math.prod(shape) == 0:
        return x.new_empty(shape)
    return reference.upsample_conv(x, weight, bias).contiguous(memory_format=_layout(x))


def _folded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not weight.requires_grad and _winograd.pays(x, weight, scale=2):
        # Half of the multiplications that the folded kernel takes.
        return _relayout(_winograd.compute(x, weight, bias, doubled=True), _layout(x))
    # On a CPU oneDNN is fast on channels last only.
    laid_out = _relayout(x, torch.channels_last) if x.device.type == "cpu" else x
    bias = None if bias is None else bias.to(x.dtype)
    y = F.conv_transpose2d(laid_out, folded(weight, x.dtype), bias, stride=2, padding=1)
    return _relayout(y, _layout(x))


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from latentdem_kernels import upsample_conv as kernels

    y = torch.empty(_output_shape(x, weight), dtype=x.dtype, device=x.device, memory_format=_layout(x))
    bias = None if bias is None else _native.plain(bias)
    with torch.cuda.device_of(x):
        kernels.launch(x, folded(weight, x.dtype), bias, y, forward=True)
    return y


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(_output_shape(x, weight)).contiguous(memory_format=_layout(x))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
    ctx.layout = _layout(x)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    grad = grad.contiguous(memory_format=ctx.layout)
    wants_x, wants_weight, wants_bias = ctx.needs_input_grad
    grad_x = _input_gradient.run(grad, weight) if wants_x else None
    grad_weight = None
    if wants_weight:
        fine = F.interpolate(x, scale_factor=2, mode="nearest")
        grad_weight = conv2d_weight(fine, list(weight.shape), grad, padding=1).to(weight.dtype)
    return grad_x, grad_weight, grad.sum((0, 2, 3)).to(weight.dtype) if wants_bias else None


_forward = Operation(
    "upsample_conv",
    "(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    reference=_reference,
    fake=_fake,
    backends={"triton": Implementation(_triton, _native.triton_refusal)},
    fallback=_folded,
    save=_save,
    backward=_backward,
    keeps_layout=True,
)


# The gradient in x, (B, C, H, W), given that in the result, (B, O, 2H, 2W).


def _reference_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    shape = _input_shape(grad, weight)
    if math.prod(shape) == 0:
        return grad.new_empty(shape)
    fine = F.conv_transpose2d(grad, weight.to(grad.dtype), padding=1)
    return F.avg_pool2d(fine, 2, divisor_override=1).contiguous(memory_format=_layout(grad))


def _folded_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    kernel = folded(weight, grad.dtype)
    return F.conv2d(grad, kernel, stride=2, padding=1).contiguous(memory_format=_layout(grad))


def _triton_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    from latentdem_kernels import upsample_conv as kernels

    shape = _input_shape(grad, weight)
    grad_x = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=_layout(grad))
    with torch.cuda.device_of(grad):
        kernels.launch(grad, folded(weight, grad.dtype), None, grad_x, forward=False)
    return grad_x


def _fake_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    return grad.new_empty(_input_shape(grad, weight)).contiguous(memory_format=_layout(grad))


_input_gradient = Operation(
    "upsample_conv_input_gradient",
    "(Tensor grad, Tensor weight) -> Tensor",
    reference=_reference_gradient,
    fake=_fake_gradient,
    backends={"triton": Implementation(_triton_gradient, _native.triton_refusal)},
    fallback=_folded_gradient,
    keeps_layout=True,
    recorded_as="upsample_conv",
)


def _layout(x: Tensor) -> torch.memory_format:
    """The layout of the result."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _output_shape(x: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
    return x.shape[0], weight.shape[0], 2 * x.shape[2], 2 * x.shape[3]


def _input_shape(grad: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
    return grad.shape[0], weight.shape[1], grad.shape[2] // 2, grad.shape[3] // 2


def _relayout(x: Tensor, layout: torch.memory_format) -> Tensor:
    """`x.contiguous(memory_format=layout)`, by the compiled module where that is several times faster."""
    if x.is_contiguous(memory_format=layout):
        return x
    contiguous = layout == torch.contiguous_format
    other = torch.channels_last if contiguous else torch.contiguous_format
    if (
        _backends.cpu is None
        or x.device.type != "cpu"
        or x.element_size() > 4
        or x.is_neg()
        or not x.is_contiguous(memory_format=other)
    ):
        return x.contiguous(memory_format=layout)
    y = torch.empty_like(x, memory_format=layout)
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    rows, columns = (pixels, channels) if contiguous else (channels, pixels)
    sizes = {"batch": x.shape[0], "rows": rows, "columns": columns, "item_size": x.element_size()}
    _native.call_cpp("transpose", from_=x, to=y, **sizes)
    return y
