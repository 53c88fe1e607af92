"""Blur kernels of one or two parameters: the most likely ones, on grids that zoom in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..operators.blur import Blur
from ..operators.families import KernelFamily
from ..priors.base import LatentPrior
from ..solver.passes import NO_HOOKS, Candidates, Hooks, join
from .selection import likeliest
from .trials import TRIAL_STEPS, tried

_GRIDS = {1: (17, 9), 2: (7, 5, 5)}  # points along each parameter, for families of 1 and 2 parameters
_AT_ONCE = 16  # kernels that are tried in one batch, per image


class FamilySearch:
    """Finds the kernel of measurements on their lattice, known up to the few numbers of a family.

    Every grid is logarithmic and spans what lies between the neighbours of the best point of the one before.

    Args:
        prior: latent diffusion prior.
        family: that the kernel is of.
        operator: makes the operator from kernel size and mask.
    """

    cautious = False

    def __init__(self, prior: LatentPrior, family: KernelFamily, operator: Callable[..., Blur] = Blur) -> None:
        self.prior, self.family, self.operator = prior, family, operator

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels that all steps together go through, for one measurement of this size."""
        count = len(self.family.names)
        return height * width * TRIAL_STEPS * sum(points**count for points in _GRIDS[count])

    def __call__(
        self,
        y: Tensor,
        kernel_size: int,
        noise_sigma: Tensor,
        generator: torch.Generator,
        mask: Tensor | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates:
        """The likeliest member for each image.

        Args:
            y: (B, 3, H, W) in [-1, 1].
            kernel_size: K.
            noise_sigma: (B,) standard deviation of the noise.
            generator: its seed is that of the noise.
            mask: (1, 1, H, W), 1 where y was measured; None for everywhere.
            hooks: what is told about the run while it goes on.
        """
        count, least, most = len(self.family.names), self.family.least, self.family.most(kernel_size)
        operator = self.operator(kernel_size, mask=mask, fixed=True)
        low, high = y.new_tensor([least, most]).log()
        centre, half = ((low + high) / 2).expand(len(y), 1, count), (high - low) / 2
        tries: list[Candidates] = []
        values: list[Tensor] = []
        for points in _GRIDS[count]:
            line = torch.linspace(-1, 1, points, device=y.device, dtype=y.dtype)
            grid = torch.cartesian_prod(*[line] * count).view(-1, count)
            for part in (centre + half * grid).clamp(low, high).split(_AT_ONCE, 1):
                latest = tried(
                    self.prior,
                    operator,
                    y,
                    self.family.kernel(part.exp().flatten(0, 1), kernel_size),
                    noise_sigma,
                    generator.initial_seed(),
                    stage="kernel search",
                    hooks=hooks,
                )
                best = likeliest(latest.evidence.view(len(y), -1), 1)
                tries.append(latest.pick(best))
                values.append(part.flatten(0, 1)[best])
            top = likeliest(torch.stack([each.evidence for each in tries], 1), 1)
            centre, half = torch.stack(values, 1).flatten(0, 1)[top][:, None], half * (line[1] - line[0])
        part_of = top % len(tries) * len(y) + torch.arange(len(y), device=y.device)
        return join(tries).pick(part_of)
