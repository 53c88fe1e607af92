"""The search for blur kernels of one or two parameters: the most likely ones, on grids that zoom in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..operators.blur import Blur
from ..operators.families import KernelFamily
from ..priors.base import LatentPrior
from ..solver.measurement import Measurement
from ..solver.passes import NO_HOOKS, Candidates, Hooks, join, run_passes
from .selection import most_plausible
from .trials import TRIAL_STEPS, trial

_GRIDS = {1: (17, 9), 2: (7, 5, 5)}  # points along each parameter, for families of 1 and 2 parameters
_AT_ONCE = 16  # kernels that are tried in one batch, per image


class FamilySearch:
    """Finds the kernel of measurements on their padded grid, known up to the few numbers of a family.

    Every grid is logarithmic and spans the interval between the neighbours of the best point so far.

    Args:
        prior: latent diffusion prior.
        family: the family of the kernel.
        operator: makes the operator from kernel size and mask.
    """

    cautious = False
    tried = True

    def __init__(self, prior: LatentPrior, family: KernelFamily, operator: Callable[..., Blur] = Blur) -> None:
        self.prior, self.family, self.operator = prior, family, operator

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels of all steps together, for one measurement of this size."""
        count = len(self.family.names)
        return height * width * TRIAL_STEPS * sum(points**count for points in _GRIDS[count])

    def __call__(
        self,
        measurement: Measurement,
        kernel_size: int,
        generator: torch.Generator,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates:
        """The most likely member of the family for each image; the arguments are those of `BlindSearch`."""
        count, least, most = len(self.family.names), self.family.least, self.family.most(kernel_size)
        y, images = measurement.y, len(measurement)
        operator = self.operator(kernel_size, mask=measurement.mask, fixed=True)
        low, high = y.new_tensor([least, most]).log()
        centre, half = ((low + high) / 2).expand(images, 1, count), (high - low) / 2
        winners: list[Candidates] = []
        values: list[Tensor] = []
        for points in _GRIDS[count]:
            line = torch.linspace(-1, 1, points, device=y.device, dtype=y.dtype)
            grid = torch.cartesian_prod(*[line] * count).view(-1, count)
            for part in (centre + half * grid).clamp(low, high).split(_AT_ONCE, 1):
                kernels = self.family.kernel(part.exp().flatten(0, 1), kernel_size)
                arguments = trial(self.prior, operator, measurement, kernels, generator.initial_seed())
                tried = run_passes(**arguments, stage="kernel search", hooks=hooks)
                best = most_plausible(tried.evidence.view(images, -1), 1)
                winners.append(tried.pick(best))
                values.append(part.flatten(0, 1)[best])
            top = most_plausible(torch.stack([one.evidence for one in winners], 1), 1)
            centre, half = torch.stack(values, 1).flatten(0, 1)[top][:, None], half * (line[1] - line[0])
        part_of = top % len(winners) * images + torch.arange(images, device=y.device)
        return join(winners).pick(part_of)
