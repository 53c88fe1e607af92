"""Upsampling by 2 and a 3 x 3 convolution at once, as an implicit matrix product, and its input gradient.

`latentdem_ext._folded_weights` has the algebra: with the 4 x 4 kernel k, along one axis,
    y[2i + a] = sum over p = 0, 1 of x[i + a + p - 1] k[3 - a - 2p]   (2 x 2 taps for each parity a of y),
    gradient[i] = sum over p = 0..3 of grad[2i + p - 1] k[p].
Both are products of a matrix of pixels x (taps, channels) that is never written with the kernel as a matrix;
one kernel does both. Any strides; fastest where channels are contiguous. Accumulation is float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def kernel(
    x,
    k,
    bias,
    y,
    pixels,
    height,
    width,
    K,
    N,
    x_image,
    x_channel,
    x_row,
    x_column,
    k_row,
    k_column,
    k_in,
    k_out,
    y_image,
    y_channel,
    y_row,
    y_column,
    FORWARD: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Program: `BLOCK_M` low-resolution pixels by `BLOCK_N` output channels, of one parity if FORWARD.

    K input channels, N output channels, x of `height` x `width` pixels at the low resolution.
    """
    SCALE: tl.constexpr = 1 if FORWARD else 2  # of the rows and columns of x
    TAPS: tl.constexpr = 2 if FORWARD else 4
    blocks_n = tl.cdiv(N, BLOCK_N)
    m = tl.program_id(0) // blocks_n * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) % blocks_n * BLOCK_N + tl.arange(0, BLOCK_N)
    a, b = tl.program_id(1) // 2, tl.program_id(1) % 2
    image = m // (height * width)
    i, j = m // width % height, m % width
    source = x + image.to(tl.int64) * x_image
    accumulator = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    blocks_k = tl.cdiv(K, BLOCK_K)
    for step in range(TAPS * TAPS * blocks_k):
        p, q = step // (TAPS * blocks_k), step // blocks_k % TAPS
        c = step % blocks_k * BLOCK_K + tl.arange(0, BLOCK_K)
        row, column = SCALE * i + a + p - 1, SCALE * j + b + q - 1
        inside = (m < pixels) & (row >= 0) & (row < SCALE * height) & (column >= 0) & (column < SCALE * width)
        at = row.to(tl.int64) * x_row + column.to(tl.int64) * x_column
        seen = tl.load(
            (source + at)[:, None] + (c.to(tl.int64) * x_channel)[None, :],
            mask=inside[:, None] & (c < K)[None, :],
            other=0.0,
        )
        tap = (3 - a - 2 * p) * k_row + (3 - b - 2 * q) * k_column if FORWARD else p * k_row + q * k_column
        factor = tl.load(
            k + tap + (c * k_in)[:, None] + (n * k_out)[None, :],
            mask=(c < K)[:, None] & (n < N)[None, :],
            other=0.0,
        )
        accumulator = tl.dot(seen, factor, accumulator, input_precision=PRECISION)
    if bias is not None:
        accumulator += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[None, :]
    OUT: tl.constexpr = 2 if FORWARD else 1
    at = (
        image.to(tl.int64) * y_image
        + (OUT * i + a).to(tl.int64) * y_row
        + (OUT * j + b).to(tl.int64) * y_column
    )
    tl.store(
        (y + at)[:, None] + (n.to(tl.int64) * y_channel)[None, :],
        accumulator,
        mask=(m < pixels)[:, None] & (n < N)[None, :],
    )


def configuration(item_size: int, channels_in: int, channels_out: int) -> dict[str, Any]:
    """Tile, warps and stages. Half precision uses up to 96 KiB of shared memory, float32 up to 48 KiB."""
    half = item_size == 2
    block_n = max(16, min(128 if half else 64, triton.next_power_of_2(channels_out)))
    return {
        "BLOCK_M": 128 if half else 64,
        "BLOCK_N": block_n,
        "BLOCK_K": max(16, min(64 if half else 32, triton.next_power_of_2(channels_in))),
        "num_warps": 8 if block_n == 128 else 4,
        "num_stages": 3,
    }


def convolutions_use_tf32() -> bool:
    """Whether PyTorch's convolutions multiply float32 as TF32 on a CUDA device."""
    settings = getattr(torch.backends.cudnn, "conv", None)  # PyTorch 2.9 and newer
    if settings is not None:
        # `allow_tf32` raises there where convolutions and recurrent networks have different settings.
        return bool(settings.fp32_precision == "tf32")
    return bool(torch.backends.cudnn.allow_tf32)


def launch(x: Tensor, k: Tensor, bias: Tensor | None, y: Tensor, forward: bool) -> None:
    """Forward: x (B, C, H, W), k (C, O, 4, 4), y (B, O, 2H, 2W); else x is the gradient in y and y that in x.

    float32 is multiplied as PyTorch's convolutions do. Strides may be any, nothing is empty; y is written.
    """
    low = x if forward else y
    pixels = low.shape[0] * low.shape[2] * low.shape[3]
    channels_in, channels_out = x.shape[1], y.shape[1]
    k_in, k_out = (0, 1) if forward else (1, 0)
    config = configuration(x.element_size(), channels_in, channels_out)
    tiles = triton.cdiv(pixels, config["BLOCK_M"]) * triton.cdiv(channels_out, config["BLOCK_N"])
    kernel[(tiles, 4 if forward else 1)](
        x,
        k,
        bias,
        y,
        pixels,
        *low.shape[2:],
        channels_in,
        channels_out,
        *x.stride(),
        *k.stride()[2:],
        k.stride(k_in),
        k.stride(k_out),
        *y.stride(),
        FORWARD=forward,
        PRECISION="tf32" if convolutions_use_tf32() else "ieee",
        **config,
    )
