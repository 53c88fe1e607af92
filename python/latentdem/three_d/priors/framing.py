"""A network that estimates how high a camera was, and where a crop shows the middle of an object."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...priors.network import Convolution, Network
from ..geometry.cameras import POLAR_RANGE, RADIUS
from .layers import Block

# Approximate means and standard deviations of the estimated values over crops of the training objects.
MEANS = (sum(POLAR_RANGE) / 2, math.log(RADIUS), 0.0, 0.0)
DEVIATIONS = (math.radians(23), 0.1, 0.04, 0.04)
MIRRORED = (1.0, 1.0, -1.0, 1.0)  # factors of the values of a mirrored crop
DROPPED = 0.1  # share of the features that are dropped in training
LOG_VARIANCES = (-6.0, 4.0)  # range of the logarithms of predicted variances, in units of `DEVIATIONS` squared


class Framing(Network):
    """Estimates the camera, apart from the azimuth, of a view or of a crop centred on the visible part.

    Renderings from all sides are centred on one point of an object. The middle of the visible part is a
    different point from each side, and its size does not determine the distance; a prior that was trained on
    renderings mistakes both for a rotation of the camera. The appearance of an object is informative about its
    middle. What the prior has learnt of objects helps: the network starts from the features of its encoder
    (`ViewNetwork.overview`). Trained by tools/train_framing.py.

    Args:
        channels: channels of these features.
        size: their height and width, even.
        width, coarse: channels at this and at half the resolution.
        hidden: features of the last layers.
    """

    def __init__(
        self, channels: int = 160, size: int = 8, width: int = 24, coarse: int = 24, hidden: int = 70
    ) -> None:
        super().__init__(channels=channels, size=size, width=width, coarse=coarse, hidden=hidden)
        self.norm = nn.LayerNorm(channels)
        self.conv_in = nn.Conv2d(channels, width, 1)
        self.block = Block(width, Convolution, 4)
        self.halve = nn.Conv2d(width, coarse, 2, stride=2)
        self.head = nn.Sequential(
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(DROPPED),
            nn.Linear(coarse * (size // 2) ** 2, hidden),
            nn.GELU(),
            nn.Dropout(DROPPED),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 2 * len(MEANS)),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (N, 4), in the units of `standardised`, and the logarithms (N, 4) of their variances.

        Args:
            features: (N, channels, size, size) features of the encoder.
        """
        x = self.norm(features.movedim(1, -1)).movedim(-1, 1)
        means, log_variances = self.head(self.halve(self.block(self.conv_in(x)))).chunk(2, dim=1)
        return means, log_variances.clamp(*LOG_VARIANCES)

    def cameras(self, features: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Cameras (N, 5), less `RADIUS` and at azimuth 0, of views or crops; see cameras.py.

        They are the means of the estimates for the views and for their mirror images. The standard deviations
        (N, 5) of their errors follow, 0 for the azimuth.

        Args:
            features, mirrored: (N, channels, size, size) features of the views and of their mirror images; the
                results have their dtype.
        """
        means, log_variances = (
            part.to(features) for part in self(torch.cat([features, mirrored]).to(self.dtype))
        )
        direct, mirror = means.chunk(2)
        mean = (direct + mirror * mirror.new_tensor(MIRRORED)) / 2
        polar, distance, *principal = (mean * mean.new_tensor(DEVIATIONS) + mean.new_tensor(MEANS)).unbind(1)
        distance, azimuth = distance.exp(), torch.zeros_like(polar)
        cameras = torch.stack([polar.clamp(*POLAR_RANGE), azimuth, distance - RADIUS, *principal], dim=1)
        deviation = torch.exp(0.5 * log_variances).unflatten(0, (2, -1)).mean(0)
        polar, share, *principal = (deviation * deviation.new_tensor(DEVIATIONS)).unbind(1)
        return cameras, torch.stack([polar, azimuth, share * distance, *principal], dim=1)


def standardised(cameras: Tensor) -> Tensor:
    """Standardised polar angle, log distance and principal point (N, 4) of cameras (N, 5).

    Args:
        cameras: cameras with absolute distances, not less `RADIUS`.
    """
    values = torch.cat([cameras[:, :1], cameras[:, 2:3].log(), cameras[:, 3:]], dim=1)
    return (values - values.new_tensor(MEANS)) / values.new_tensor(DEVIATIONS)
