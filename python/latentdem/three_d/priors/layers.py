"""Layers of the networks of the embedded view-conditioned prior."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...priors.network import Convolution


class Block(nn.Module):
    """`x + conv(silu(norm(conv(silu(norm(x))))))`.

    Args:
        channels: channels of x.
        convolution: `Convolution` for pixels or `convolution_3d` for volumes.
        groups: number of groups of channels that are normalised together.
    """

    def __init__(self, channels: int, convolution: Callable[[int, int], nn.Module], groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            convolution(channels, channels),
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            convolution(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def convolution_3d(inputs: int, outputs: int) -> nn.Conv3d:
    """A 3 x 3 x 3 convolution that keeps the size."""
    return nn.Conv3d(inputs, outputs, 3, padding=1)


class Exchange(nn.Module):
    """Corrections that several known views make to each other's features of the same target view.

    Every view compares its features with the mean of the others', pixel by pixel, in `Block`s. Before training
    all corrections are zero.

    Args:
        features: channels of the features.
        hidden: channels in which they are compared.
        corrected: channels of the corrections.
    """

    def __init__(self, features: int, hidden: int, corrected: int) -> None:
        super().__init__()
        self.own = nn.Conv2d(features, hidden, 1)
        self.others = nn.Conv2d(features, hidden, 1, bias=False)
        self.body = nn.Sequential(*(Block(hidden, Convolution, 8) for _ in range(2)), nn.SiLU())
        self.correction = Convolution(hidden, corrected)
        for parameter in self.correction.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Corrections (K, n, corrected, h, w), at least in single precision.

        Args:
            features: (K, n, features, h, w), n > 1, features from each known view of K target views.
        """
        views = features.shape[1]
        rows = features.flatten(0, 1)
        own, shared = (layer(rows).unflatten(0, (-1, views)) for layer in (self.own, self.others))
        hidden = own + (shared.sum(1, keepdim=True) - shared) / (views - 1)
        correction = self.correction(self.body(hidden.flatten(0, 1))).unflatten(0, (-1, views))
        return correction.to(torch.promote_types(correction.dtype, torch.float32))


class Residual(nn.Module):
    """`relu(x + norm(conv(relu(norm(conv(x))))))`; He et al. 2016, *Deep residual learning*."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolution(channels, channels), *convolution(channels, channels)[:2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def convolution(inputs: int, outputs: int, stride: int = 1, side: int = 3) -> list[nn.Module]:
    """A convolution with a kernel of `side` x `side`, the normalisation of its batch, and ReLU."""
    return [
        nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
