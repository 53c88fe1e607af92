"""Smaller networks of the embedded prior that start from the weights of larger ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.autoencoder import ResidualBlock as PlainBlock
from latentdem.priors.unet import ResidualBlock, UNet

TIMES = 1000  # timesteps of the schedule


def pruned(teacher: UNet, widths: Sequence[int], fit_steps: int = 1500) -> UNet:
    """A U-Net of `widths` with one block a level that computes roughly what `teacher` does.

    Of every group of channels that are normalised together, those with the largest weights are kept, so that
    the statistics of the groups stay about the same. The first block of a level remains on the way down, the
    first and the last one on the way up. The embedding of timesteps, which has other frequencies, is fitted.

    Args:
        teacher: the larger network, with two blocks a level and no attention.
        widths: channels at full, half, ... resolution, multiples of the number of groups.
        fit_steps: steps of AdamW for the embedding of timesteps.
    """
    groups = teacher.config["norm_num_groups"]
    student = UNet(
        teacher.config["in_channels"],
        teacher.config["out_channels"],
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=groups,
    )
    wide = teacher.config["block_out_channels"]
    # The residual stream of a level: what its layers read and write.
    streams = [largest(_stream_weight(teacher, level), width, groups) for level, width in enumerate(widths)]
    everything = torch.arange(teacher.config["in_channels"])
    _copy_conv(teacher.conv_in, student.conv_in, everything, streams[0])
    copied: list[tuple[ResidualBlock, ResidualBlock, Tensor]] = []

    def copy_block(old: ResidualBlock, new: ResidualBlock, read: Tensor, write: Tensor) -> None:
        hidden = largest(old.conv2.weight.transpose(0, 1).flatten(1).norm(dim=1), len(write), groups)
        _copy_norm(old.norm1, new.norm1, read)
        _copy_conv(old.conv1, new.conv1, read, hidden)
        _copy_norm(old.norm2, new.norm2, hidden)
        _copy_conv(old.conv2, new.conv2, hidden, write)
        if old.conv_shortcut is not None and new.conv_shortcut is not None:
            _copy_conv(old.conv_shortcut, new.conv_shortcut, read, write)
        copied.append((old, new, hidden))

    for level, (old, new) in enumerate(zip(teacher.down_blocks, student.down_blocks, strict=True)):
        copy_block(old.resnets[0], new.resnets[0], streams[max(0, level - 1)], streams[level])
        if len(old.downsamplers):
            _copy_conv(old.downsamplers[0].conv, new.downsamplers[0].conv, streams[level], streams[level])
    for old, new in zip(teacher.mid_block.resnets, student.mid_block.resnets, strict=True):
        copy_block(old, new, streams[-1], streams[-1])
    below = len(widths) - 1
    for level, old, new in zip(reversed(range(len(widths))), teacher.up_blocks, student.up_blocks, strict=True):
        first = torch.cat([streams[below], wide[below] + streams[level]])
        entered = max(0, level - 1)  # the level whose width entered this one on the way down
        last = torch.cat([streams[level], wide[level] + streams[entered]])
        copy_block(old.resnets[0], new.resnets[0], first, streams[level])
        copy_block(old.resnets[-1], new.resnets[-1], last, streams[level])
        if len(old.upsamplers):
            _copy_conv(old.upsamplers[0].conv, new.upsamplers[0].conv, streams[level], streams[level])
        below = level
    _copy_norm(teacher.conv_norm_out, student.conv_norm_out, streams[0])
    _copy_conv(teacher.conv_out, student.conv_out, streams[0], everything)
    _fit_embedding(teacher, student, copied, fit_steps)
    return student


def _stream_weight(teacher: UNet, level: int) -> Tensor:
    """How much the layers of a level write to each channel of its stream, (width,)."""
    blocks = [*teacher.down_blocks[level].resnets, *teacher.up_blocks[-1 - level].resnets]
    return torch.stack([block.conv2.weight.flatten(1).norm(dim=1) for block in blocks]).sum(0)


def largest(weight: Tensor, count: int, groups: int) -> Tensor:
    """Indices of the `count` channels with the largest `weight`, equally many of each group, in order."""
    grouped = weight.detach().view(groups, -1)
    best = grouped.topk(count // groups, dim=1).indices.sort(1).values
    return (best + torch.arange(groups)[:, None] * grouped.shape[1]).flatten()


@torch.no_grad()
def _copy_conv(old: nn.Conv2d, new: nn.Conv2d, read: Tensor, write: Tensor) -> None:
    new.weight.copy_(old.weight[write][:, read])
    new.bias.copy_(old.bias[write])


@torch.no_grad()
def _copy_norm(old: nn.GroupNorm, new: nn.GroupNorm, kept: Tensor) -> None:
    new.weight.copy_(old.weight[kept])
    new.bias.copy_(old.bias[kept])


def _fit_embedding(
    teacher: UNet, student: UNet, copied: Sequence[tuple[ResidualBlock, ResidualBlock, Tensor]], steps: int
) -> None:
    """Fits what the timestep adds in all blocks of the student to that of the teacher."""
    times = torch.arange(0, TIMES, 8)
    with torch.no_grad():
        wanted = [
            old.time_emb_proj(teacher.time_embedding(times, torch.float32))[:, kept] for old, _, kept in copied
        ]
    layers = [student.time_embedding, *(new.time_emb_proj for _, new, _ in copied)]
    optimizer = torch.optim.AdamW([p for layer in layers for p in layer.parameters()], lr=2e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        embedding = student.time_embedding(times, torch.float32)
        losses = [
            F.mse_loss(new.time_emb_proj(embedding), one) / one.var()
            for (_, new, _), one in zip(copied, wanted, strict=True)
        ]
        torch.stack(losses).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def pruned_autoencoder(teacher: EmbeddedAutoencoder, quarter: int) -> EmbeddedAutoencoder:
    """An autoencoder with `quarter` channels at quarter resolution that computes roughly what `teacher` does.

    It has no block at half resolution on the way down, one on the way up, and two at quarter resolution: of the
    teacher's blocks, the last ones remain before the latent, the first ones after it.
    """
    half, wide = teacher.config["widths"]
    student = EmbeddedAutoencoder(
        teacher.config["latent_channels"],
        (half, quarter),
        (0, 2),
        (1, 2),
        teacher.config["latents_mean"],
        teacher.config["latents_std"],
    )
    for old, new in ((teacher.encoder, student.encoder), (teacher.decoder, student.decoder)):
        stream = torch.stack(
            [
                block.body[3].weight.flatten(1).norm(dim=1)
                for block in old
                if isinstance(block, PlainBlock) and len(block.body[3].weight) == wide
            ]
        ).sum(0)
        kept = {wide: stream.topk(quarter).indices.sort().values}
        _copy_blocks(old, new, kept)
        convolutions = [[layer for layer in network if isinstance(layer, nn.Conv2d)] for network in (old, new)]
        for a, b in zip(*convolutions, strict=True):
            read, write = (kept.get(width, torch.arange(width)) for width in a.weight.shape[1::-1])
            _copy_conv(a, b, read, write)
    return student


def _copy_blocks(old: nn.Sequential, new: nn.Sequential, kept: dict[int, Tensor]) -> None:
    """Copies the blocks of each resolution, those next to the latent, which begins a decoder."""
    blocks = [[layer for layer in network if isinstance(layer, PlainBlock)] for network in (old, new)]
    from_start = isinstance(old[1], PlainBlock)
    for width in {len(block.body[3].weight) for block in blocks[0]}:
        channels = kept.get(width, torch.arange(width))
        large = [block for block in blocks[0] if len(block.body[3].weight) == width]
        small = [block for block in blocks[1] if len(block.body[3].weight) == len(channels)]
        for a, b in zip(large if from_start else large[len(large) - len(small) :], small, strict=False):
            hidden = largest(a.body[3].weight.transpose(0, 1).flatten(1).norm(dim=1), len(channels), 1)
            _copy_conv(a.body[1], b.body[1], channels, hidden)
            _copy_conv(a.body[3], b.body[3], hidden, channels)
