"""A network that estimates where a crop shows the middle of an object, as training renderings define it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...priors.network import Network
from ..geometry.cameras import POLAR_RANGE, RADIUS
from .layers import Residual, convolution

# Approximate means and standard deviations of the estimated values over crops of the training objects.
MEANS = (sum(POLAR_RANGE) / 2, math.log(RADIUS), 0.0, 0.0)
DEVIATIONS = (math.radians(23), 0.1, 0.04, 0.04)
MIRRORED = (1.0, 1.0, -1.0, 1.0)  # factors of the values of a mirrored crop
LOG_VARIANCES = (-6.0, 4.0)  # range of the logarithms of predicted variances, in units of `DEVIATIONS` squared


class Framing(Network):
    """Estimates the camera, apart from the azimuth, of a crop centred on the visible part of an object.

    Renderings from all sides are centred on one point of an object. The middle of the visible part is a
    different point from each side, and its size does not determine the distance; a prior that was trained on
    renderings mistakes both for a rotation of the camera. The appearance of an object is informative about its
    middle. Trained by tools/train_framing.py.

    Args:
        size: height and width S of the crops, a multiple of 8.
        widths: channels at a half, a quarter and an eighth of this resolution.
        features: channels of the last features, from which all estimates are computed.
    """

    def __init__(self, size: int = 64, widths: tuple[int, int, int] = (24, 40, 44), features: int = 16) -> None:
        super().__init__(size=size, widths=list(widths), features=features)
        half, quarter, eighth = widths
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            *convolution(12, half),
            *convolution(half, quarter, stride=2),
            Residual(quarter),
            Residual(quarter),
            *convolution(quarter, eighth, stride=2),
            Residual(eighth),
            nn.Conv2d(eighth, features, 1, bias=False),
            nn.BatchNorm2d(features),
            nn.ReLU(),
        )
        self.head = nn.Linear(features * (size // 8) ** 2, 2 * len(MEANS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (N, 4), in the units of `standardised`, and the logarithms (N, 4) of their variances.

        Args:
            x: (N, 3, S, S) crops in [-1, 1] on white.
        """
        features = self.body(x.contiguous(memory_format=torch.channels_last))
        means, log_variances = self.head(features.flatten(1)).chunk(2, dim=1)
        return means, log_variances.clamp(*LOG_VARIANCES)

    def cameras(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cameras (N, 5), less `RADIUS` and at azimuth 0, of crops `x` (N, 3, S, S); see cameras.py.

        They are the means of the estimates for the crops and for their mirror images. The standard deviations
        (N, 5) of their errors follow, 0 for the azimuth.
        """
        means, log_variances = self(torch.cat([x, x.flip(-1)]))
        direct, mirror = means.chunk(2)
        mean = (direct + mirror * mirror.new_tensor(MIRRORED)) / 2
        polar, distance, *principal = (mean * mean.new_tensor(DEVIATIONS) + mean.new_tensor(MEANS)).unbind(1)
        distance, azimuth = distance.exp(), torch.zeros_like(polar)
        cameras = torch.stack([polar, azimuth, distance - RADIUS, *principal], dim=1)
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
