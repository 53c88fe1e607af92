"""3 x 3 convolution, float32 on a CPU, with a quarter of the multiplications, for weights that are not learned.

Winograd's F(4 x 4, 3 x 3) (Lavin and Gray 2016) in csrc/cpu/winograd.cpp: transforms of additions around 36
matrix products for each tile of 4 x 4 outputs. The rounding is four to five times that of the direct sum, below
1e-6 of the result. Transformed weights are four times as large as the weights; small ones are kept.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _backends, _native
from ._registry import Implementation, Operation
from ._weight_cache import WeightCache

# Where the convolution pays (measured: benchmarks/test_bench_network.py).
_LEAST_CHANNELS = 8
_LEAST_TILES = 9  # in a batch
_KEPT = 2**16  # pairs of channels of the largest weight whose transform is kept, in 9.4 MB
_LEAST_TILES_NOT_KEPT = 1024
_LANES = 16  # outputs in a panel of the transformed weights; LANES in csrc/cpu/winograd.cpp


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv2d(x, weight, bias, padding=1)` of (B, C, H, W) with (O, C, 3, 3).

    On a CPU in float32, with weights that are not learned, by Winograd's algorithm where it is faster: the
    result is then channels last, and what is computed from the weight is kept until it changes; changes made
    through `weight.data` are not seen. By PyTorch's convolution elsewhere, with all that it allows.
    """
    return convolve(x, weight, bias) if suits(x, weight, bias) else F.conv2d(x, weight, bias, padding=1)


def suits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `convolve(x, weight, bias)` is possible here and faster than PyTorch's direct convolution."""
    return (
        pays(x, weight)
        and not torch.is_autocast_enabled("cpu")
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and _operation.choose(x, weight, bias, False) == "cpp"
    )


def pays(x: Tensor, weight: Tensor, scale: int = 1) -> bool:
    """Whether this is the faster algorithm for a result of `scale` times the height and width of `x`."""
    height, width = (-(-scale * length // 4) for length in x.shape[-2:])  # in tiles
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= _LEAST_CHANNELS
        and x.shape[0] * height * width >= (_LEAST_TILES if _is_kept(weight) else _LEAST_TILES_NOT_KEPT)
        and _backends.cpu is not None
        and _has_wide_vectors()
    )


def _is_kept(weight: Tensor) -> bool:
    return weight.numel() <= 9 * _KEPT


@cache
def _has_wide_vectors() -> bool:
    """Whether PyTorch found AVX2 or AVX-512, without which the direct convolution was not compared."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


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
    return compute(x, weight, bias, adjoint=adjoint)


def compute(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, adjoint: bool = False, doubled: bool = False
) -> Tensor:
    """The result, channels last, by the compiled module; with `doubled`, of x after nearest upsampling by 2."""
    x = x.resolve_neg().contiguous(memory_format=torch.channels_last)
    outputs = weight.shape[1 if adjoint else 0]
    batch, channels, height, width = x.shape
    size = (height << doubled, width << doubled)
    y = torch.empty((batch, outputs, *size), dtype=x.dtype, memory_format=torch.channels_last)
    _native.call_cpp(
        "winograd",
        x=x,
        u=_transformed(weight, adjoint) if _is_kept(weight) else transform(weight, adjoint),
        bias=x.new_zeros(outputs) if bias is None else _native.plain(bias),
        y=y,
        batch=batch,
        height=size[0],
        width=size[1],
        channels=channels,
        outputs=outputs,
        doubled=doubled,
    )
    return y


def transform(weight: Tensor, adjoint: bool) -> Tensor:
    """G w G^T of (O, C, 3, 3), or of the flipped and transposed kernel with `adjoint`: (36, O / 16, C, 16).

    G for the points 0, +-a, +-b and infinity: a row for each point p is (1, p, p^2) over the product of its
    distances to the other ones.
    """
    a, b = 0.625, 1.5
    at_a, at_b = 2 * a**2 * (a**2 - b**2), 2 * b**2 * (b**2 - a**2)
    g = torch.tensor(
        [
            [1 / (a * b) ** 2, 0, 0],
            [1 / at_a, a / at_a, a**2 / at_a],
            [1 / at_a, -a / at_a, a**2 / at_a],
            [1 / at_b, b / at_b, b**2 / at_b],
            [1 / at_b, -b / at_b, b**2 / at_b],
            [0, 0, 1],
        ],
        dtype=torch.float64,
    )
    kernel = weight.detach().flip(-2, -1) if adjoint else weight.detach().transpose(0, 1)  # (channels, outputs)
    taps = kernel.permute(2, 3, 0, 1).flatten(0, 1).double()  # (9, channels, outputs)
    planes = (torch.kron(g, g) @ taps.flatten(1)).float().unflatten(1, taps.shape[1:])
    padded = F.pad(planes, (0, -planes.shape[-1] % _LANES))
    return padded.unflatten(-1, (-1, _LANES)).transpose(1, 2).contiguous()


_transformed = WeightCache(transform)


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
