"""silu(group_norm(x)) and its gradients; `latentdem_ext.reference` has the formula.

Three launches each way: sums of every channel over parts of its plane, the numbers of every group from those,
and a pass over the tensor. A tile is (channels, positions) whatever lies contiguous in memory: contiguous
tensors have the strides (S, 1), channels-last ones (1, C). Storage is float16, bfloat16 or float32, arithmetic
float32; sums are added in an order that depends on the shape alone.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

TILE = 2048
PROGRAMS = 1024  # that add up sums: about eight for each multiprocessor of a large device
FEW_PROGRAMS = 512


@triton.jit
def place_of(pieces, C, BLOCK_C: tl.constexpr):
    """Piece of the plane (a part or a tile), channels and sample of a program.

    Programs are counted in one dimension, which holds more than the others, channels first.
    """
    blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    c = program % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    return program // blocks % pieces, c, (program // (blocks * pieces)).to(tl.int64)


@triton.jit
def moments_kernel(
    x, means, squares, C, S, stride_c, stride_s, span, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr
):
    """Mean and sum of squared deviations of channels over one part, by Welford's update in every lane."""
    parts = tl.cdiv(S, span)
    part, c, sample = place_of(parts, C, BLOCK_C)
    lane = tl.arange(0, BLOCK_S)
    begin = part * span
    end = tl.minimum(begin + span, S)
    rows = x + sample * C * S + (c.to(tl.int64) * stride_c)[:, None]
    mean = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    square = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    seen = 0.0
    for start in range(begin, end, BLOCK_S):
        s = start + lane
        inside = (c < C)[:, None] & (s < end)[None, :]
        value = tl.load(rows + (s.to(tl.int64) * stride_s)[None, :], mask=inside, other=0.0).to(tl.float32)
        seen += 1.0
        apart = tl.where(inside, value - mean, 0.0)
        mean += apart * (1.0 / seen)
        square += apart * (value - mean)
    count = ((end - begin - lane + BLOCK_S - 1) // BLOCK_S).to(tl.float32)[None, :]  # of each lane
    whole = tl.sum(mean * count, axis=1) / (end - begin)
    apart = mean - whole[:, None]
    at = (sample * parts + part) * C + c
    tl.store(means + at, whole, mask=c < C)
    tl.store(squares + at, tl.sum(square + count * apart * apart, axis=1), mask=c < C)


@triton.jit
def statistics_kernel(
    means, squares, mean, rstd, C, S, width, parts, span, eps, BLOCK_P: tl.constexpr, BLOCK_W: tl.constexpr
):
    """Mean and 1 / standard deviation of one group of one sample from the moments of its channels and parts."""
    number = tl.program_id(0)
    group, sample = number % (C // width), (number // (C // width)).to(tl.int64)
    channel = tl.arange(0, BLOCK_W)
    total = tl.zeros([BLOCK_P, BLOCK_W], tl.float32)
    for first in range(0, parts, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        inside = (part < parts)[:, None] & (channel < width)[None, :]
        at = (sample * parts + part)[:, None] * C + group * width + channel[None, :]
        count = tl.minimum(S - part * span, span).to(tl.float32)[:, None]
        total += count * tl.load(means + at, mask=inside, other=0.0)
    whole = tl.sum(tl.sum(total, axis=1), axis=0) / (width * S)
    total = tl.zeros([BLOCK_P, BLOCK_W], tl.float32)
    for first in range(0, parts, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        inside = (part < parts)[:, None] & (channel < width)[None, :]
        at = (sample * parts + part)[:, None] * C + group * width + channel[None, :]
        count = tl.minimum(S - part * span, span).to(tl.float32)[:, None]
        apart = tl.load(means + at, mask=inside, other=0.0) - whole
        total += tl.where(inside, tl.load(squares + at, mask=inside, other=0.0) + count * apart * apart, 0.0)
    variance = tl.sum(tl.sum(total, axis=1), axis=0) / (width * S)
    tl.store(mean + number, whole)
    tl.store(rstd + number, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def affine_of(weight, bias, mean, rstd, sample, c, C, width):
    """Per channel: mean, scale and shift of u = scale (x - mean) + shift, and the index of the group."""
    group = sample * (C // width) + c // width
    known = c < C
    m = tl.load(mean + group, mask=known, other=0.0)
    scale = tl.load(rstd + group, mask=known, other=0.0) * tl.load(weight + c, mask=known, other=0.0).to(
        tl.float32
    )
    shift = tl.load(bias + c, mask=known, other=0.0).to(tl.float32)
    return m[:, None], scale[:, None], shift[:, None], group


@triton.jit
def through_silu(grad, u):
    """grad * silu'(u)."""
    s = tl.sigmoid(u)
    return grad * (s * (1.0 + u * (1.0 - s)))


@triton.jit
def forward_kernel(
    x,
    weight,
    bias,
    mean,
    rstd,
    y,
    C,
    S,
    stride_c,
    stride_s,
    width,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """y = silu(u) of one tile."""
    tile, c, sample = place_of(tl.cdiv(S, BLOCK_S), C, BLOCK_C)
    s = tile * BLOCK_S + tl.arange(0, BLOCK_S)
    inside = (c < C)[:, None] & (s < S)[None, :]
    at = sample * C * S + (c.to(tl.int64) * stride_c)[:, None] + (s.to(tl.int64) * stride_s)[None, :]
    m, scale, shift, _ = affine_of(weight, bias, mean, rstd, sample, c, C, width)
    u = (tl.load(x + at, mask=inside).to(tl.float32) - m) * scale + shift
    tl.store(y + at, u * tl.sigmoid(u), mask=inside)


@triton.jit
def sums_kernel(
    grad,
    x,
    weight,
    bias,
    mean,
    rstd,
    sums,
    moments,
    C,
    S,
    stride_c,
    stride_s,
    width,
    span,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """With d = grad * silu'(u): sums of d and of d (x - mean) of channels over one part."""
    parts = tl.cdiv(S, span)
    part, c, sample = place_of(parts, C, BLOCK_C)
    begin = part * span
    end = tl.minimum(begin + span, S)
    m, scale, shift, _ = affine_of(weight, bias, mean, rstd, sample, c, C, width)
    total = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    moment = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    for start in range(begin, end, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        inside = (c < C)[:, None] & (s < end)[None, :]
        at = sample * C * S + (c.to(tl.int64) * stride_c)[:, None] + (s.to(tl.int64) * stride_s)[None, :]
        centred = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - m
        d = through_silu(tl.load(grad + at, mask=inside, other=0.0).to(tl.float32), centred * scale + shift)
        total += d
        moment += d * centred
    at = (sample * parts + part) * C + c
    tl.store(sums + at, tl.sum(total, axis=1), mask=c < C)
    tl.store(moments + at, tl.sum(moment, axis=1), mask=c < C)


@triton.jit
def correction_kernel(
    sums,
    moments,
    weight,
    rstd,
    grad_weight,
    grad_bias,
    constant,
    slope,
    C,
    S,
    width,
    parts,
    BLOCK_P: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Gradients of weight and bias of one group of one sample, and what its grad_x is corrected by."""
    number = tl.program_id(0)
    group, sample = number % (C // width), (number // (C // width)).to(tl.int64)
    channel = tl.arange(0, BLOCK_W)
    known = channel < width
    total = tl.zeros([BLOCK_P, BLOCK_W], tl.float32)
    moment = tl.zeros([BLOCK_P, BLOCK_W], tl.float32)
    for first in range(0, parts, BLOCK_P):
        part = first + tl.arange(0, BLOCK_P)
        inside = (part < parts)[:, None] & known[None, :]
        at = (sample * parts + part)[:, None] * C + group * width + channel[None, :]
        total += tl.load(sums + at, mask=inside, other=0.0)
        moment += tl.load(moments + at, mask=inside, other=0.0)
    by_channel, moment_by_channel = tl.sum(total, axis=0), tl.sum(moment, axis=0)
    r = tl.load(rstd + number)
    factor = tl.load(weight + group * width + channel, mask=known, other=0.0).to(tl.float32)
    at = sample * C + group * width + channel
    tl.store(grad_bias + at, by_channel, mask=known)
    tl.store(grad_weight + at, moment_by_channel * r, mask=known)
    tl.store(constant + number, r * tl.sum(factor * by_channel, axis=0) / (width * S))
    tl.store(slope + number, r * r * r * tl.sum(factor * moment_by_channel, axis=0) / (width * S))


@triton.jit
def gradient_kernel(
    grad,
    x,
    weight,
    bias,
    mean,
    rstd,
    constant,
    slope,
    grad_x,
    C,
    S,
    stride_c,
    stride_s,
    width,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """grad_x = scale d - constant - slope (x - mean) of one tile."""
    tile, c, sample = place_of(tl.cdiv(S, BLOCK_S), C, BLOCK_C)
    s = tile * BLOCK_S + tl.arange(0, BLOCK_S)
    inside = (c < C)[:, None] & (s < S)[None, :]
    at = sample * C * S + (c.to(tl.int64) * stride_c)[:, None] + (s.to(tl.int64) * stride_s)[None, :]
    m, scale, shift, group = affine_of(weight, bias, mean, rstd, sample, c, C, width)
    k0 = tl.load(constant + group, mask=c < C, other=0.0)[:, None]
    k1 = tl.load(slope + group, mask=c < C, other=0.0)[:, None]
    centred = tl.load(x + at, mask=inside).to(tl.float32) - m
    d = through_silu(tl.load(grad + at, mask=inside).to(tl.float32), centred * scale + shift)
    tl.store(grad_x + at, scale * d - (k0 + k1 * centred), mask=inside)


class Plan(NamedTuple):
    """How a tensor is cut up."""

    sizes: tuple[int, int, int, int]  # C, S and their strides
    width: int  # channels of a group
    parts: int  # of a plane
    span: int  # positions of a part
    tile: dict[str, int]
    joint: dict[str, int]  # tile of the kernels that join parts
    by_part: tuple[int]  # programs
    by_tile: tuple[int]
    by_group: tuple[int]


def plan(x: Tensor, groups: int) -> Plan:
    """For (B, C, ...), contiguous or channels last."""
    batch, channels, spatial = x.shape[0], x.shape[1], x[0, 0].numel()
    channels_last = not x.is_contiguous()
    if channels_last:
        block_c = min(triton.next_power_of_2(channels), 128)
        block_s = min(triton.next_power_of_2(spatial), TILE // block_c)
    else:
        block_s = min(triton.next_power_of_2(spatial), TILE)
        block_c = min(triton.next_power_of_2(channels), TILE // block_s)
    blocks = triton.cdiv(channels, block_c)
    # Enough programs for a large device; four tiles each, or fewer where that would leave too few programs.
    tiles, others = triton.cdiv(spatial, block_s), batch * blocks
    parts = max(triton.cdiv(tiles, 4), min(tiles, triton.cdiv(FEW_PROGRAMS, others)))
    parts = min(parts, triton.cdiv(PROGRAMS, others))
    span = triton.cdiv(triton.cdiv(spatial, parts), block_s) * block_s
    parts = triton.cdiv(spatial, span)
    width = channels // groups
    block_w = triton.next_power_of_2(width)
    return Plan(
        (channels, spatial, *((1, channels) if channels_last else (spatial, 1))),
        width,
        parts,
        span,
        {"BLOCK_C": block_c, "BLOCK_S": block_s},
        {"BLOCK_P": min(triton.next_power_of_2(parts), max(1, TILE // block_w)), "BLOCK_W": block_w},
        (parts * others,),
        (tiles * others,),
        (groups * batch,),
    )


def launch(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, eps: float) -> None:
    """Writes y, shape and layout of x, and mean and rstd, (B, groups) float32.

    x is contiguous or channels last, the rest is contiguous; nothing is empty.
    """
    p = plan(x, mean.shape[1])
    means, squares = mean.new_empty(2, x.shape[0], p.parts, p.sizes[0])
    moments_kernel[p.by_part](x, means, squares, *p.sizes, p.span, **p.tile)
    statistics_kernel[p.by_group](
        means, squares, mean, rstd, *p.sizes[:2], p.width, p.parts, p.span, float(eps), **p.joint
    )
    forward_kernel[p.by_tile](x, weight, bias, mean, rstd, y, *p.sizes, p.width, **p.tile)


def launch_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
) -> None:
    """Writes grad_x, and grad_weight and grad_bias, (B, C) float32: the share of each sample."""
    p = plan(x, mean.shape[1])
    sums, moments = mean.new_empty(2, x.shape[0], p.parts, p.sizes[0])
    constant, slope = mean.new_empty(2, *mean.shape)
    sums_kernel[p.by_part](
        grad, x, weight, bias, mean, rstd, sums, moments, *p.sizes, p.width, p.span, **p.tile
    )
    correction_kernel[p.by_group](
        sums,
        moments,
        weight,
        rstd,
        grad_weight,
        grad_bias,
        constant,
        slope,
        *p.sizes[:2],
        p.width,
        p.parts,
        **p.joint,
    )
    gradient_kernel[p.by_tile](
        grad, x, weight, bias, mean, rstd, constant, slope, grad_x, *p.sizes, p.width, **p.tile
    )
