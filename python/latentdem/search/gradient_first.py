"""The default search: kernels from the gradients of a photograph first, the blind search where they fail."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..solver.measurement import Measurement
from ..solver.passes import NO_HOOKS, Candidates, Hooks, run_passes
from .blind import BlindSearch
from .gradient_start import starts_for
from .selection import merged_kernels, most_plausible, plausibility
from .trials import TRIAL_STEPS, trial


@dataclass(frozen=True)
class GradientFirst:
    """Constants of `GradientFirstSearch`.

    Attributes:
        tried: kernels of the gradient-based start that are tried, besides the first one turned by 180 degrees.
        explained: residual of a trial, in units of the noise, up to which its kernel needs no search.
        low_noise: standard deviation of the noise, in units of [-1, 1], above which a search follows always.
        least_sigma: least noise that the blind search assumes, whose M-steps lose the kernel under less.
    """

    tried: int = 6
    explained: float = 2.0
    low_noise: float = 0.01
    least_sigma: float = 0.01


class GradientFirstSearch:
    """Finds the kernel of measurements on their padded grid.

    A start from the gradients takes seconds. Short restorations with each of its kernels show how well the
    prior explains the measurement with them, and the evidence chooses. Where the best one does not explain a
    photograph, or the noise hides the gradients, the blind search runs too, and the evidence chooses again.

    Args:
        search: the blind search.
        config: constants.
    """

    cautious = True

    def __init__(self, search: BlindSearch, config: GradientFirst | None = None) -> None:
        self.search, self.config = search, config or GradientFirst()

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels of all full EM steps if the blind search is needed, for one measurement of this size."""
        return self._start_work(height, width) + self._search_work(height, width, kernel_size)

    def _start_work(self, height: int, width: int) -> int:
        return height * width * TRIAL_STEPS * (self.config.tried + 1)

    def _search_work(self, height: int, width: int, kernel_size: int) -> int:
        return 2 * height * width * TRIAL_STEPS + self.search.work(height, width, kernel_size)

    def __call__(
        self,
        measurement: Measurement,
        kernel_size: int,
        generator: torch.Generator,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates:
        """The most plausible kernel of each image; the arguments are those of `BlindSearch`."""
        images, seed, name = len(measurement), generator.initial_seed(), "kernel search"
        prior = self.search.prior
        operator = self.search.operator(kernel_size, mask=measurement.mask, fixed=True)
        kernels = starts_for(measurement.measured_part(), kernel_size)[0][:, : self.config.tried]
        kernels = torch.cat([kernels, kernels[:, :1].flip(-2, -1)], 1)
        tried = run_passes(
            **trial(prior, operator, measurement, kernels.flatten(0, 1), seed), stage=name, hooks=hooks
        )
        score = plausibility(tried).view(images, -1)
        best = most_plausible(score, 1)
        merged = merged_kernels(tried.parameters, score, best, kernels.shape[1])
        start = replace(tried.pick(best), parameters=merged)
        explained = start.residual <= self.config.explained * measurement.sigma
        if bool((explained & (measurement.sigma <= self.config.low_noise)).all()):
            if hooks.on_work is not None:
                hooks.on_work(name, images * self._search_work(*measurement.size, kernel_size))
            return start

        noisier = replace(measurement, sigma=measurement.sigma.clamp_min(self.config.least_sigma))
        searched = self.search(noisier, kernel_size, generator, hooks)
        both = torch.stack([start.parameters, searched.parameters], 1)
        tried = run_passes(
            **trial(prior, operator, measurement, both.flatten(0, 1), seed), stage=name, hooks=hooks
        )
        best = most_plausible(plausibility(tried).view(images, -1), 1)
        return replace(tried.pick(best), trace=searched.trace)
