"""The exact prior over a few objects, and views of them from cameras that no grid knows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from latentdem.three_d.cameras import relative_pose
from latentdem.three_d.finite_objects import FiniteObjectsPrior
from latentdem.three_d.noise_error import PairError
from latentdem.three_d.recipe import Recipe
from latentdem.three_d.search import PoseSearch

ABAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
# (polar, azimuth) in degrees; the first is the reference.
CAMERAS = torch.tensor([(70.0, 20.0), (83.0, 108.0), (62.0, -113.0), (75.0, -40.0)])


class Exact:
    """The prior, what it knows of `count` views of its second object, and the truth about them."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        points = 0.3 * torch.randn(2, 8, 3, generator=generator)
        colours = 2 * torch.rand(2, 8, 3, generator=generator) - 1
        self.cameras = torch.cat([torch.deg2rad(CAMERAS), torch.full((len(CAMERAS), 1), 1.6)], 1)
        self.prior = FiniteObjectsPrior(points, colours, self.cameras, ABAR, image_size=12)
        self.views = self.prior.view(torch.ones(count, dtype=torch.long), self.cameras[:count])
        self.condition = self.prior.condition(self.views)
        self.poses = relative_pose(self.cameras[:count], self.cameras[:1])
        self.error = PairError(self.prior, self.condition, self.prior.encode(self.views))

    def search(self, recipe: Recipe | None = None, seed: int = 0) -> PoseSearch:
        return PoseSearch(self.error, recipe or Recipe(), torch.Generator().manual_seed(seed))

    def truth(self, targets: Tensor) -> Tensor:
        """What the object looks like from `targets` (K, 3), relative to view 1."""
        return self.prior.view(torch.ones(len(targets), dtype=torch.long), self.cameras[0] + targets)

    def wrong(self, poses: Tensor) -> float:
        """The largest error of an angle in degrees."""
        return math.degrees(float(relative_pose(poses, self.poses)[..., :2].abs().max()))


@pytest.fixture
def exact() -> type[Exact]:
    return Exact
