"""The default search: kernels from the gradients of a photograph first, the blind search where they fail."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..operators.blur import pad_kernel
from ..solver.measurement import Measurement
from ..solver.passes import NO_HOOKS, Candidates, Hooks, run_passes
from .blind import BlindSearch
from .gradient_refine import kernels_from_images
from .gradient_start import SETTINGS, automatic_sizes, sizes_around, starts_for
from .selection import most_plausible, plausibility, together
from .trials import TRIAL_STEPS, trial

_LARGEST_SEARCHED = 64  # K of the blind search where the kernel size is unknown


@dataclass(frozen=True)
class GradientFirst:
    """Constants of `GradientFirstSearch`.

    Attributes:
        tried: kernels of the gradient-based start that are tried, besides the first one turned by 180 degrees.
        automatic_settings: settings of the start that each kernel size is estimated with if it is unknown.
        explained: residual of a trial, in units of the noise, up to which its kernel needs no search.
        refined: best kernels that are estimated again from the images of their trials.
        rounds: how often.
        low_noise: standard deviation of the noise, in units of [-1, 1], above which it hides the gradients, and
            the blind search runs alone.
        least_sigma: least noise that the blind search assumes, whose M-steps lose the kernel under less.
    """

    tried: int = 8
    automatic_settings: int = 2
    refined: int = 2
    rounds: int = 2
    explained: float = 3.0
    low_noise: float = 0.01
    least_sigma: float = 0.01


class GradientFirstSearch:
    """Finds the kernel of measurements on their padded grid.

    A start from the gradients takes seconds. Short restorations with each of its kernels show how well the
    prior explains the measurement with them, and the evidence chooses. Where the best one does not explain a
    photograph the blind search runs too, and the evidence chooses again. Where the noise hides the gradients
    the blind search runs alone.

    Args:
        search: the blind search.
        config: constants.
        automatic: whether the size of the kernel is unknown, and the given K only its upper limit.
    """

    cautious = True
    tried = True

    def __init__(
        self, search: BlindSearch, config: GradientFirst | None = None, automatic: bool = False
    ) -> None:
        self.search, self.config, self.automatic = search, config or GradientFirst(), automatic

    def noisy(self, measurement: Measurement) -> bool:
        """Whether the noise hides the gradients of all photographs, so that the blind search runs alone."""
        return bool((measurement.sigma > self.config.low_noise).all())

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels of all full EM steps if the blind search is needed, for one measurement of this size."""
        return self._start_work(height, width) + self._search_work(height, width, kernel_size)

    def _start_work(self, height: int, width: int) -> int:
        trials = self.config.tried + 1 + self.config.rounds * self.config.refined
        return height * width * TRIAL_STEPS * trials

    def _search_work(self, height: int, width: int, kernel_size: int) -> int:
        search = self.search.work(height, width, min(kernel_size, _LARGEST_SEARCHED))
        return 2 * height * width * TRIAL_STEPS + search

    def __call__(
        self,
        measurement: Measurement,
        kernel_size: int,
        generator: torch.Generator,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates:
        """The most plausible kernel (B, 1, K, K) of each image; the arguments are those of `BlindSearch`."""
        if self.noisy(measurement):
            if hooks.on_work is not None:
                height, width = measurement.size
                skipped = self._start_work(height, width) + 2 * height * width * TRIAL_STEPS
                hooks.on_work("kernel search", len(measurement) * skipped)
            return self.search(measurement, kernel_size, generator, hooks)
        images, seed, name = len(measurement), generator.initial_seed(), "kernel search"
        prior = self.search.prior
        operator = self.search.operator(kernel_size, mask=measurement.mask, fixed=True)
        rows, columns = measurement.measured_window
        part = measurement.window(rows, columns)
        side = min(part.size)
        sizes = automatic_sizes(side) if self.automatic else sizes_around(kernel_size, side)
        settings = SETTINGS[: self.config.automatic_settings] if self.automatic else SETTINGS
        kernels = starts_for(part, kernel_size, sizes, settings)[0][:, : self.config.tried]
        kernels = torch.cat([kernels, kernels[:, :1].flip(-2, -1)], 1)
        fewer = self.config.tried + 1 - kernels.shape[1]  # than `work` counts, in small photographs
        if hooks.on_work is not None and fewer:
            hooks.on_work(name, fewer * images * measurement.size[0] * measurement.size[1] * TRIAL_STEPS)
        arguments = trial(prior, operator, measurement, kernels.flatten(0, 1), seed)
        tried = run_passes(**arguments, stage=name, hooks=hooks)
        latest = tried
        for _ in range(self.config.rounds):
            score = plausibility(latest).view(images, -1)
            chosen = latest.pick(most_plausible(score, self.config.refined))
            refined = kernels_from_images(part, chosen.image[..., rows, columns], kernel_size)
            arguments = trial(prior, operator, measurement, refined, seed)
            latest = run_passes(**arguments, stage=name, hooks=hooks)
            latest.trace[:0] = chosen.trace
            tried = together(tried, latest, images)
        best = most_plausible(plausibility(tried).view(images, -1), 1)
        start = tried.pick(best)
        explained = start.residual <= self.config.explained * measurement.sigma
        if bool(explained.all()):
            if hooks.on_work is not None:
                hooks.on_work(name, images * self._search_work(*measurement.size, kernel_size))
            return start

        noisier = replace(measurement, sigma=measurement.sigma.clamp_min(self.config.least_sigma))
        searched = self.search(noisier, min(kernel_size, _LARGEST_SEARCHED), generator, hooks)
        both = torch.stack([start.parameters, pad_kernel(searched.parameters, kernel_size)], 1)
        arguments = trial(prior, operator, measurement, both.flatten(0, 1), seed)
        tried = run_passes(**arguments, stage=name, hooks=hooks)
        score = plausibility(tried).view(images, 2)
        score[:, 1] = torch.where(explained, -torch.inf, score[:, 1])  # as if each image were alone
        return replace(tried.pick(most_plausible(score, 1)), trace=searched.trace)
