"""The noise predictor of the embedded priors: a U-Net of residual blocks, conditioned on the timestep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdem_ext import convolution, group_norm_silu, upsample_conv

from .network import Convolution, Network
from .parametrization import timestep_on

EPS = 1e-5  # of group normalisations
LONGEST_PERIOD = 10000  # of the sines of timesteps


class UNet(Network):
    """U-Net of Ho et al. 2020, *Denoising diffusion probabilistic models*, without attention but in its middle.

    Weights, configuration and results are those of a `UNet2DModel` of diffusers with these arguments and its
    defaults for the others.

    Args:
        in_channels, out_channels: channels of the input and the output.
        block_out_channels: channels at full, half, quarter, ... resolution.
        layers_per_block: residual blocks at each resolution on the way down; one more on the way up.
        norm_num_groups: groups of channels that are normalised together.
        add_attention: whether pixels of the lowest resolution attend to each other.
        attention_head_dim: channels of each head of attention.
    """

    @classmethod
    def implied(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a `UNet2DModel` that are not arguments here."""
        levels = len(config["block_out_channels"])
        return {
            "act_fn": "silu",
            "attn_norm_num_groups": None,
            "center_input_sample": False,
            "class_embed_type": None,
            "down_block_types": ["DownBlock2D"] * levels,
            "downsample_padding": 1,
            "downsample_type": "conv",
            "dropout": 0.0,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "mid_block_scale_factor": 1,
            "mid_block_type": "UNetMidBlock2D",
            "norm_eps": EPS,
            "num_class_embeds": None,
            "num_train_timesteps": None,
            "resnet_time_scale_shift": "default",
            "sample_size": config.get("sample_size"),  # any, because no layer depends on it
            "time_embedding_dim": None,
            "time_embedding_type": "positional",
            "up_block_types": ["UpBlock2D"] * levels,
            "upsample_type": "conv",
        }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block_out_channels: Sequence[int] = (96, 128, 160),
        layers_per_block: int = 2,
        norm_num_groups: int = 16,
        add_attention: bool = False,
        attention_head_dim: int = 8,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=list(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            add_attention=add_attention,
            attention_head_dim=attention_head_dim,
        )
        first, last = block_out_channels[0], block_out_channels[-1]
        embedded, groups = 4 * first, norm_num_groups
        self.time_embedding = TimestepEmbedding(first, embedded)
        self.conv_in = Convolution(in_channels, first)
        self.down_blocks = nn.ModuleList()
        skipped, channels = [first], first
        for level, width in enumerate(block_out_channels):
            halves = level < len(block_out_channels) - 1
            blocks = [ResidualBlock(channels, width, embedded, groups)]
            blocks += [ResidualBlock(width, width, embedded, groups) for _ in range(layers_per_block - 1)]
            self.down_blocks.append(Down(blocks, width, halves))
            skipped += [width] * (layers_per_block + halves)
            channels = width
        self.mid_block = Middle(last, embedded, groups, last // attention_head_dim if add_attention else 0)
        self.up_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(block_out_channels))):
            blocks = []
            for _ in range(layers_per_block + 1):
                blocks.append(ResidualBlock(channels + skipped.pop(), width, embedded, groups))
                channels = width
            self.up_blocks.append(Up(blocks, width, doubles=level > 0))
        self.conv_norm_out = nn.GroupNorm(groups, first, EPS)
        self.conv_out = Convolution(first, out_channels)

    def forward(self, x: Tensor, t: Tensor | int) -> Tensor:
        """The output (B, out_channels, h, w).

        Args:
            x: (B, in_channels, h, w), with sides that are multiples of 2^(levels - 1).
            t: one timestep, or (B,).
        """
        x, skipped, embedding = self._down(x, t)
        for stage in self.up_blocks:
            x = stage(x, skipped, embedding)
        result: Tensor = self.conv_out(normalised(self.conv_norm_out, x))
        return result

    def coarsest(self, x: Tensor, t: Tensor | int) -> Tensor:
        """Features (B, c, h', w') at the lowest resolution, halfway through `forward`, given the same."""
        return self._down(x, t)[0]

    def _down(self, x: Tensor, t: Tensor | int) -> tuple[Tensor, list[Tensor], Tensor]:
        """The features of `coarsest`, those of the levels before, and the embedding of the timestep."""
        embedding = self.time_embedding(timestep_on(x.device, t).to(x.device).reshape(-1), self.dtype)
        skipped = [self.conv_in(x)]
        for stage in self.down_blocks:
            skipped += stage(skipped[-1], embedding)
        features: Tensor = self.mid_block(skipped[-1], embedding)
        return features, skipped, embedding


def normalised(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """`silu(norm(x))`."""
    return group_norm_silu(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


class TimestepEmbedding(nn.Module):
    """Sines of timesteps (Vaswani et al. 2017, Sec. 3.5) through two linear layers and SiLU.

    Args:
        frequencies: number of cosines and sines together, half of it each.
        outputs: channels of the result.
    """

    def __init__(self, frequencies: int, outputs: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(frequencies, outputs), nn.Linear(outputs, outputs)

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """The embedding (B, outputs) of timesteps `t` (B,), after the SiLU that all residual blocks apply."""
        half = self.linear_1.in_features // 2
        exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
        angles = t[:, None].float() * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype)
        return F.silu(self.linear_2(F.silu(self.linear_1(waves))))


class ResidualBlock(nn.Module):
    """`x + conv(silu(norm(conv(silu(norm(x))) + timestep)))`, after a 1 x 1 convolution of x to more channels.

    Args:
        channels, outputs: channels of x and of the result.
        embedded: channels of the embedding of the timestep.
        groups: number of groups of channels that are normalised together.
    """

    def __init__(self, channels: int, outputs: int, embedded: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, EPS)
        self.conv1 = Convolution(channels, outputs)
        self.time_emb_proj = nn.Linear(embedded, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, EPS)
        self.conv2 = Convolution(outputs, outputs)
        self.conv_shortcut = None if channels == outputs else nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift = self.time_emb_proj(embedding)
        h = normalised(self.norm1, x)
        if len(shift) == 1 and not torch.is_grad_enabled():  # one timestep for all: a part of the bias
            h = convolution(h, self.conv1.weight, self.conv1.bias + shift[0])
        else:
            h = self.conv1(h) + shift[:, :, None, None]
        h = self.conv2(normalised(self.norm2, h))
        # In place, because a convolution needs its result for no gradient.
        h += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return h


class Down(nn.Module):
    """The residual blocks of one resolution on the way down; `halves` adds a step to the next one."""

    def __init__(self, blocks: list[ResidualBlock], width: int, halves: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(blocks)
        self.downsamplers = nn.ModuleList([Downsample(width)] if halves else [])

    def forward(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The results of all parts, each of which reads that of the one before it."""
        results = []
        for block in self.resnets:
            results.append(x := block(x, embedding))
        for step in self.downsamplers:
            results.append(step(x))
        return results


class Up(nn.Module):
    """The residual blocks of one resolution on the way up; `doubles` adds a step to the next one."""

    def __init__(self, blocks: list[ResidualBlock], width: int, doubles: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(blocks)
        self.upsamplers = nn.ModuleList([Upsample(width)] if doubles else [])

    def forward(self, x: Tensor, skipped: list[Tensor], embedding: Tensor) -> Tensor:
        """The result, with the last tensors of `skipped`, which it removes, beside the input of each block."""
        for block in self.resnets:
            x = block(torch.cat([x, skipped.pop()], dim=1), embedding)
        for step in self.upsamplers:
            x = step(x)
        return x


class Downsample(nn.Module):
    """A convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class Upsample(nn.Module):
    """Nearest upsampling by 2 and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return upsample_conv(x, self.conv.weight, self.conv.bias)


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them for `heads` > 0."""

    def __init__(self, channels: int, embedded: int, groups: int, heads: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, embedded, groups) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(channels, groups, heads)] if heads else [])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[0](x, embedding)
        for attention in self.attentions:
            x = attention(x)
        result: Tensor = self.resnets[1](x, embedding)
        return result


class Attention(nn.Module):
    """Self-attention between all pixels (Vaswani et al. 2017, Sec. 3.2), added to its input."""

    def __init__(self, channels: int, groups: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = (
            layer(pixels).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        # Written out because it is faster than fused attention on a CPU where pixels are few.
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(value.dtype)
        attended = self.to_out[0]((weights @ value).transpose(1, 2).flatten(2))
        return x + attended.transpose(1, 2).reshape(x.shape)
