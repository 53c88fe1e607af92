"""3 x 3 convolution in float32 on a CPU with 4/9 of the multiplications, for weights that are not learned.

Winograd's F(2 x 2, 3 x 3) (Lavin and Gray 2016): outputs in tiles of 2 x 2, transforms of additions before and
after sixteen matrix products. The weights are transformed anew at every call, which is little next to the
products and saves holding 16/9 of them. The rounding is no larger than that of the direct sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backends

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
        and _backends.choose("convolution", {"cpp": ""}) == "cpp"
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(x, weight, bias, padding=1)`, (B, O, H, W), channels last; differentiable in x alone.

    x (B, C, H, W), weight (O, C, 3, 3), bias (O,): float32 in CPU memory.
    """
    result: Tensor = _operation(x, weight, bias, False)
    return result


@torch.library.custom_op("latentdem::winograd_convolution", mutates_args=())
def _operation(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    """The convolution, or with `adjoint` that with the transposed kernel: the gradient of its input."""
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
    native = _backends.cpu
    assert native is not None
    common = {"height": height, "width": width, "rows": rows, "threads": torch.get_num_threads()}
    for sample_x, sample_y in zip(x, y, strict=True):
        for top in range(0, down, rows):
            # The last band may reach beyond the image: what lies there is zero, and not written.
            native.winograd_input(
                x=sample_x.data_ptr(), v=tiled.data_ptr(), channels=channels, top=top, **common
            )
            torch.bmm(tiled, kernel, out=products)
            native.winograd_output(
                m=products.data_ptr(),
                bias=bias.data_ptr(),
                y=sample_y.data_ptr(),
                channels=outputs,
                top=top,
                **common,
            )
    return y


def _transformed(weight: Tensor, adjoint: bool) -> Tensor:
    """G w G^T of (O, C, 3, 3) as (16, C, O), or of the flipped kernel as (16, O, C) with `adjoint`."""
    g = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
    both = torch.kron(g, g)  # (16, 9)
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    found = (both.flip(1) if adjoint else both) @ taps
    found = found.view(16, *weight.shape[:2])
    return found if adjoint else found.mT


@_operation.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:
    y = x.new_empty(x.shape[0], weight.shape[1 if adjoint else 0], *x.shape[2:])
    return y.contiguous(memory_format=torch.channels_last)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, weight, _, ctx.adjoint = inputs
    ctx.save_for_backward(weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (weight,) = ctx.saved_tensors
    return _operation(grad, weight, None, not ctx.adjoint), None, None, None


_operation.register_autograd(_backward, setup_context=_save)
