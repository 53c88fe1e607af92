"""A network that estimates the volume of an object from what the prior predicts of it from each known view."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...priors.network import Network
from ..geometry.cameras import EXTENT, OBJECT_RADIUS, grid_points
from .layers import Block, convolution_3d
from .network import FeatureVolume

GRID = 32  # grid points along one side
INK = 0.12  # a pixel shows the object if some channel is darker than white by more than this; black is 2 darker
SCALE = 4.0  # of logits as the network sees them
ROUNDING = 1e-5  # of points on the sides of the cube
NOTHING = -9.0  # logit at points that no view shows


class Occupancy(Network):
    """Corrects the mean opacity of all known views, on a grid in the world, to the probability of being inside.

    The opacity that the prior estimates from one view alone is spread over all depths that are possible, and
    the mean of several does not know what one outline excludes. Here a small U-Net sees opacities and features
    of all views together with the outlines. It is trained on volumes, with their intersection over union as a
    part of the loss. Its output is added to the mean logit. Trained by
    tools/train_occupancy.py. A network that turns projected features of several views into a volume is that of
    Kar et al. 2017, *Learning a multi-view stereo machine*; U-Net: Cicek et al. 2016, *3D U-Net*.

    Args:
        features: features of a view at a point.
        widths: channels at full resolution, at half and at a quarter of it, multiples of 4.
    """

    def __init__(self, features: int = 16, widths: Sequence[int] = (12, 16, 28)) -> None:
        super().__init__(features=features, widths=list(widths))
        width, half, quarter = widths
        self.conv_in = nn.Conv3d(features + 7, width, 1)
        self.to_half = nn.Conv3d(width, half, 2, stride=2)
        self.at_half = Block(half, convolution_3d, 4)
        self.at_quarter = nn.Sequential(
            nn.Conv3d(half, quarter, 2, stride=2), Block(quarter, convolution_3d, 4)
        )
        self.from_quarter = nn.Conv3d(quarter, half, 1)
        self.half_again = Block(half, convolution_3d, 4)
        self.from_half = nn.Conv3d(half, width, 1)
        self.at_full = Block(width, convolution_3d, 4)
        self.conv_out = nn.Conv3d(width, 1, 1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Logits (K, N, N, N) of being inside K objects at the points of a grid.

        Args:
            x: (K, features + 7, N, N, N) what the known views say of the points, see `known_at`; N is a
                multiple of 4.
            logits: (K, N, N, N) mean logits of the opacity.
        """
        full = self.conv_in(x)
        half = self.at_half(self.to_half(full))
        quarter = self.at_quarter(half)
        half = self.half_again(half + F.interpolate(self.from_quarter(quarter), scale_factor=2.0))
        full = self.at_full(full + F.interpolate(self.from_half(half), scale_factor=2.0))
        correction: Tensor = self.conv_out(F.silu(full))
        return logits + correction[:, 0].to(logits)

    def at(self, volume: FeatureVolume, cameras: Tensor, points: Tensor) -> Tensor:
        """Probability (...) that an object is at `points` (..., 3), interpolated between those of the grid.

        Args:
            volume: n volumes of one object.
            cameras: (n, 3) polar angles and azimuths in radians and distances.
            points: (..., 3) points of the world, whose dtype the result has; it is 0 outside the cube with
                sides 2 `EXTENT`.
        """
        parts, like = FeatureVolume(*(part.to(self.dtype) for part in volume)), cameras.to(self.dtype)
        grid = self(*self.known_at(parts, like[None], grid_points(GRID).to(like)[None]))
        places = (points.flip(-1) / EXTENT).to(grid)
        rows = places.reshape(1, -1, 1, 1, 3)
        sampled = F.grid_sample(grid[:, None], rows, padding_mode="border", align_corners=True)
        within = (places.abs() <= 1 + ROUNDING).all(-1)
        return (torch.sigmoid(sampled.view(points.shape[:-1])) * within).to(points)

    def known_at(self, volume: FeatureVolume, cameras: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """What n known views of each of K objects say of points, in the dtype of the volumes.

        Of a point that a view does not show, it says a logit, an outline and features of 0.

        Args:
            volume: K n volumes, n of each object.
            cameras: (K, n, 3) polar angles and azimuths in radians and distances.
            points: (K, N, N, N, 3) points of the world.

        Returns:
            (K, features + 7, N, N, N): mean, smallest and largest logit of the opacity; smallest and mean share
            of the outlines that cover a point; whether any view shows it; its height; mean features. And
            (K, N, N, N), the mean logit of the opacity.
        """
        logits, within, positions = volume.logits_at(cameras, points)
        count, places = within.sum(1), positions.flatten(0, 1)
        shown = count > 0.5
        mean = torch.where(shown, logits.sum(1) / count.clamp_min(1), NOTHING)
        ink = (volume.picture[:, :3].amin(1, keepdim=True) < -INK).to(logits)
        covered = F.grid_sample(ink, places[..., :2].flatten(1, 2), align_corners=False).view_as(logits)
        kept = volume.features[:, -self.config["features"] :].to(logits)
        features = F.grid_sample(kept, places, align_corners=False).unflatten(0, logits.shape[:2]).mean(1)
        opacity = torch.stack([mean, logits.amin(1), logits.amax(1)], 1) / SCALE
        rest = [covered.amin(1), covered.mean(1), shown.to(mean), points[..., 2].to(mean) / OBJECT_RADIUS]
        return torch.cat([opacity, torch.stack(rest, 1), features], 1), mean
