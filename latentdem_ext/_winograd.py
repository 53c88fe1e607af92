"""3 x 3 convolution in float32 on a CPU with 4/9 of the multiplications, for weights that are not learned.

Winograd's F(2 x 2, 3 x 3) (Lavin and Gray 2016): outputs in tiles of 2 x 2, transforms of additions before and
after sixteen matrix products. The weights are transformed again at every call, which costs little next to the
products and saves the memory of 16/9 of them. The rounding is no larger than that of the direct sum.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _native
from ._registry import Implementation, Operation

# Pixels from which the convolution pays for transforming its weights, and channels from which the products
# pay for transforming images (measured: benchmarks/test_bench_vae.py).
_LEAST_PIXELS, _LEAST_CHANNELS = 1024, 128
_TILES = 256  # in a band: transformed images stay in the cache, and the products are still large


def suits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `convolve(x, weight, bias)` is possible here and faster than PyTorch's direct convolution."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
        and x.shape[-2] * x.shape[-1] >= _LEAST_PIXELS
        and _operation.choose(x, weight, bias, False) == "cpp"
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(x, weight, bias, padding=1)`, (B, O, H, W), channels last; differentiable in x alone.

    x (B, C, H, W), weight (O, C, 3, 3), bias (O,): float32 in CPU memory.
    """
    result: Tensor = _operation.run(x, weight, bias, False)
    return result


# The operation is the convolution or, with `adjoint`, the gradient of its input: the transposed convolution.


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    convolution = F.conv_transpose2d if adjoint else F.conv2d
    return convolution(x, weight, bias, padding=1).contiguous(memory_format=torch.channels_last)


def _cpp(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    kernel = _transformed(weight, adjoint)
    channels, outputs = kernel.shape[1:]
    batch, _, height, width = x.shape
    y = x.new_empty(batch, outputs, height, width).contiguous(memory_format=torch.channels_last)
    bias = x.new_zeros(outputs) if bias is None else bias.contiguous()
    across, down = (width + 1) // 2, (height + 1) // 2
    rows = max(1, _TILES // across)
    tiled = x.new_empty(16, rows * across, channels)
    products = x.new_empty(16, rows * across, outputs)
    image = {"height": height, "width": width, "rows": rows}
    for sample_x, sample_y in zip(x, y, strict=True):
        for top in range(0, down, rows):
            # The last band may reach beyond the image, where its inputs are zero and its outputs not written.
            _native.call_cpp("winograd_input", x=sample_x, v=tiled, channels=channels, top=top, **image)
            torch.bmm(tiled, kernel, out=products)
            _native.call_cpp(
                "winograd_output", m=products, bias=bias, y=sample_y, channels=outputs, top=top, **image
            )
    return y


def _transformed(weight: Tensor, adjoint: bool) -> Tensor:
    """G w G^T of (O, C, 3, 3) as (16, C, O), or of the flipped kernel as (16, O, C) with `adjoint`."""
    g = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
    both = torch.kron(g, g)  # (16, 9)
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    kernel = ((both.flip(1) if adjoint else both) @ taps).view(16, *weight.shape[:2])
    return kernel if adjoint else kernel.mT


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    y = x.new_empty(x.shape[0], weight.shape[1 if adjoint else 0], *x.shape[2:])
    return y.contiguous(memory_format=torch.channels_last)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, _, ctx.adjoint = inputs
    ctx.save_for_backward(weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (weight,) = ctx.saved_tensors
    return _operation.run(grad, weight, None, not ctx.adjoint), None, None, None


_operation = Operation(
    "winograd_convolution",
    "(Tensor x, Tensor weight, Tensor? bias, bool adjoint) -> Tensor",
    reference=_reference,
    fake=_fake,
    backends={"cpp": Implementation(_cpp, _native.cpp_refusal)},
    save=_save,
    backward=_backward,
    keeps_layout=True,
    recorded_as="convolution",
)
