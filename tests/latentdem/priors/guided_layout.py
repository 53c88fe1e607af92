"""Tiny U-Nets under the names of the guided-diffusion code, and independently what they compute."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]
HEAD = 64


@dataclass(frozen=True)
class Network:
    """A configuration, as in the files of DPS: blocks per resolution, where attention is, and so on."""

    channels: int = 3
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attention: tuple[bool, ...] = (False, True)
    residual_sampling: bool = True
    scale_shift: bool = True
    learned_variance: bool = True

    def state(self) -> State:
        """Random weights under the names of the code."""
        state: State = {}
        emb, width = 4 * self.width, self.width

        def affine(name: str, inputs: int, outputs: int, *window: int) -> None:
            fan = inputs * math.prod(window)
            state[f"{name}.weight"] = torch.randn(outputs, inputs, *window) / fan**0.5
            state[f"{name}.bias"] = 0.1 * torch.randn(outputs)

        def norm(name: str, channels: int) -> None:
            state[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels)
            state[f"{name}.bias"] = 0.1 * torch.randn(channels)

        def residual(name: str, inputs: int, outputs: int) -> None:
            norm(f"{name}.in_layers.0", inputs)
            affine(f"{name}.in_layers.2", inputs, outputs, 3, 3)
            affine(f"{name}.emb_layers.1", emb, outputs * (2 if self.scale_shift else 1))
            norm(f"{name}.out_layers.0", outputs)
            affine(f"{name}.out_layers.3", outputs, outputs, 3, 3)
            if inputs != outputs:
                affine(f"{name}.skip_connection", inputs, outputs, 1, 1)

        def attend(name: str, channels: int) -> None:
            norm(f"{name}.norm", channels)
            affine(f"{name}.qkv", channels, 3 * channels, 1)
            affine(f"{name}.proj_out", channels, channels, 1)

        def resample(name: str, channels: int, convolution: str) -> None:
            if self.residual_sampling:
                residual(name, channels, channels)
            else:
                affine(f"{name}.{convolution}", channels, channels, 3, 3)

        affine("time_embed.0", width, emb)
        affine("time_embed.2", emb, emb)
        affine("input_blocks.0.0", self.channels, width, 3, 3)
        now, kept, block = width, [width], 1
        for level, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                residual(f"input_blocks.{block}.0", now, width * multiplier)
                now = width * multiplier
                if self.attention[level]:
                    attend(f"input_blocks.{block}.1", now)
                kept.append(now)
                block += 1
            if level + 1 < len(self.multipliers):
                resample(f"input_blocks.{block}.0", now, "op")
                kept.append(now)
                block += 1
        residual("middle_block.0", now, now)
        attend("middle_block.1", now)
        residual("middle_block.2", now, now)
        block = 0
        for level in reversed(range(len(self.multipliers))):
            for j in range(self.blocks + 1):
                residual(f"output_blocks.{block}.0", now + kept.pop(), width * self.multipliers[level])
                now = width * self.multipliers[level]
                if self.attention[level]:
                    attend(f"output_blocks.{block}.1", now)
                if level and j == self.blocks:
                    resample(f"output_blocks.{block}.{1 + self.attention[level]}", now, "conv")
                block += 1
        norm("out.0", now)
        affine("out.2", now, self.channels * (2 if self.learned_variance else 1), 3, 3)
        return state

    def output(self, state: State, x: Tensor, t: int) -> Tensor:
        """What the network computes for images (B, C, H, W) at timestep t."""

        def affine(name: str, h: Tensor, stride: int = 1) -> Tensor:
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            if weight.ndim == 2:
                return F.linear(h, weight, bias)
            if weight.ndim == 3:
                return F.conv1d(h, weight, bias)
            return F.conv2d(h, weight, bias, stride, weight.shape[-1] // 2)

        def norm(name: str, h: Tensor) -> Tensor:
            return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

        def change(h: Tensor, direction: str) -> Tensor:
            if direction == "down":
                return F.avg_pool2d(h, 2)
            return F.interpolate(h, scale_factor=2.0, mode="nearest") if direction == "up" else h

        def residual(name: str, h: Tensor, direction: str = "") -> Tensor:
            inner = change(F.silu(norm(f"{name}.in_layers.0", h)), direction)
            h, inner = change(h, direction), affine(f"{name}.in_layers.2", inner)
            time = affine(f"{name}.emb_layers.1", F.silu(emb))[..., None, None]
            if self.scale_shift:
                scale, shift = time.chunk(2, 1)
                inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
            else:
                inner = norm(f"{name}.out_layers.0", inner + time)
            skip = f"{name}.skip_connection"
            h = affine(skip, h) if f"{skip}.weight" in state else h
            return h + affine(f"{name}.out_layers.3", F.silu(inner))

        def attend(name: str, h: Tensor) -> Tensor:
            joint = affine(f"{name}.qkv", norm(f"{name}.norm", h).flatten(2))
            heads = []
            for part in joint.split(3 * HEAD, 1):
                q, k, v = part.split(HEAD, 1)
                heads.append(v @ torch.softmax(q.transpose(1, 2) @ k / HEAD**0.5, -1).transpose(1, 2))
            return h + affine(f"{name}.proj_out", torch.cat(heads, 1)).view_as(h)

        def layer(name: str, h: Tensor, direction: str) -> Tensor:
            if f"{name}.qkv.weight" in state:
                return attend(name, h)
            if f"{name}.op.weight" in state:
                return affine(f"{name}.op", h, 2)
            if f"{name}.conv.weight" in state:
                return affine(f"{name}.conv", change(h, "up"))
            return residual(name, h, direction)

        frequencies = 10000 ** (-torch.arange(self.width // 2) / (self.width // 2))
        angles = (t * frequencies)[None]
        emb = affine("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))
        emb = affine("time_embed.2", F.silu(emb))
        h = affine("input_blocks.0.0", x)
        kept = [h]
        for block in range(1, len(self.multipliers) * (self.blocks + 1)):
            direction = "" if block % (self.blocks + 1) else "down"
            for part in range(2):
                if any(name.startswith(f"input_blocks.{block}.{part}.") for name in state):
                    h = layer(f"input_blocks.{block}.{part}", h, direction)
            kept.append(h)
        h = residual("middle_block.2", attend("middle_block.1", residual("middle_block.0", h)))
        for block in range(len(self.multipliers) * (self.blocks + 1)):
            h = residual(f"output_blocks.{block}.0", torch.cat([h, kept.pop()], 1))
            for part in (1, 2):
                if any(name.startswith(f"output_blocks.{block}.{part}.") for name in state):
                    h = layer(f"output_blocks.{block}.{part}", h, "up")
        return affine("out.2", F.silu(norm("out.0", h)))
