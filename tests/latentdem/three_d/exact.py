"""The exact prior over a few objects, and views of them from cameras that no grid knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentdem.three_d.cameras import relative_pose
from latentdem.three_d.finite_objects import FiniteObjectsPrior

ABAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
# In degrees, (polar, azimuth); the first is the reference.
CAMERAS = torch.tensor([(70.0, 20.0), (83.0, 108.0), (62.0, -113.0), (75.0, -40.0)])


def exact_prior(image_size: int = 12) -> FiniteObjectsPrior:
    generator = torch.Generator().manual_seed(0)
    points = 0.3 * torch.randn(2, 8, 3, generator=generator)
    colours = 2 * torch.rand(2, 8, 3, generator=generator) - 1
    cameras = torch.cat([torch.deg2rad(CAMERAS), torch.full((len(CAMERAS), 1), 1.6)], 1)
    return FiniteObjectsPrior(points, colours, cameras, ABAR, image_size)


def known_views(prior: FiniteObjectsPrior, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` views (count, 3, S, S) of object 1, and their true poses (count, 3)."""
    cameras = prior.cameras[:count]
    return prior.view(torch.ones(count, dtype=torch.long), cameras), relative_pose(cameras, cameras[:1])


def degrees_apart(poses: Tensor, truth: Tensor) -> float:
    """The largest error of an angle."""
    return math.degrees(float(relative_pose(poses, truth)[..., :2].abs().max()))
