"""The blind search: hypotheses of the kernel, refined from coarse to fine until the most plausible is left."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators.blur import Blur, resize_kernel
from ..operators.kernels import delta_kernel, gaussian_kernel
from ..priors.base import LatentPrior
from ..priors.kernel_denoiser import KernelDenoiser
from ..solver.data_weight import ModellingError
from ..solver.e_step import EStep, Proximal
from ..solver.latentdem import LatentDEM
from ..solver.measurement import Measurement
from ..solver.passes import NO_HOOKS, Candidates, Hooks, full_steps, run_passes
from ..solver.schedules import EVERY_STEP, Skip
from ..solver.state import TraceStep
from .config import Round, SearchConfig, reduced_kernel
from .selection import choose, merged_kernels, most_plausible, plausibility, together, with_turned
from .trials import TRIAL_STEPS, trial


@dataclass(frozen=True)
class _Scale:
    """A measurement at one scale, the kernel size there, and the name of the stage."""

    measurement: Measurement
    kernel_size: int
    name: str


@dataclass(frozen=True)
class _Hypotheses:
    """What a round starts from.

    Attributes:
        kernel: (N, 1, K, K), the N = B * H of one image next to each other.
        image: (N, 3, H, W); None to start from noise.
        trace: the steps that led here.
        start: (N,) index of each hypothesis in `SearchConfig.starts`.
    """

    kernel: Tensor
    image: Tensor | None
    trace: list[TraceStep]
    start: Tensor


class BlindSearch:
    """Finds the kernel of measurements on their padded grid.

    Args:
        prior: latent diffusion prior.
        denoiser: kernel denoiser of the M-step.
        config: constants of the search.
        e_step: E-step of every pass; None for `Proximal` with each hypothesis's modelling error.
        skip: which steps are full ones; None for all.
        num_samples: posterior samples per hypothesis.
        operator: makes the operator from kernel size, denoiser, settings of the M-step and mask.
    """

    cautious = True
    tried = False

    def __init__(
        self,
        prior: LatentPrior,
        denoiser: KernelDenoiser,
        config: SearchConfig | None = None,
        e_step: EStep | None = None,
        skip: Skip | None = None,
        num_samples: int = 1,
        operator: Callable[..., Blur] = Blur,
    ) -> None:
        self.operator = operator
        self.prior, self.denoiser, self.config = prior, denoiser, config or SearchConfig()
        self.e_step = e_step
        self.skip, self.num_samples = skip or EVERY_STEP, num_samples

    def with_config(self, config: SearchConfig) -> BlindSearch:
        """The same with other constants."""
        changed = copy(self)
        changed.config = config
        return changed

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels of all full EM steps together, for one measurement of this size."""
        total, alive = 0, len(self.config.starts)
        trials = 2 * TRIAL_STEPS if alive > 1 else 0  # turned kernels are tried too, at the coarsest scale
        for factor, rounds in self.config.scales(min(height, width), kernel_size):
            steps = 0
            for current in rounds:
                steps += alive * (self.num_samples * full_steps(current.passes, self.skip) + trials)
                alive = current.keep
            total += (height // factor) * (width // factor) * steps
            trials = min(trials, TRIAL_STEPS)
        return total

    def __call__(
        self,
        measurement: Measurement,
        kernel_size: int,
        generator: torch.Generator,
        hooks: Hooks = NO_HOOKS,
        first: Candidates | None = None,
    ) -> Candidates:
        """The most plausible candidate of each image, its kernel averaged with those that agree.

        Between the rounds of a scale hypotheses are chosen by their kernels, after the last round by the
        evidence for the results of all rounds: a hypothesis may get worse from one round to the next.

        Args:
            measurement: of B images (B, 3, H, W).
            kernel_size: K.
            generator: the only source of randomness.
            hooks: what follows the run.
            first: one kernel and image of each photograph to start from, where the search has one scale and one
                start; None for the kernels of the starts.
        """
        images, survivors = len(measurement), None
        for factor, rounds in self.config.scales(min(measurement.size), kernel_size):
            scale = self._scale(measurement, kernel_size, factor)
            if first is not None:
                hypotheses = _Hypotheses(first.parameters, first.image, first.trace, torch.zeros(images).long())
            else:
                hypotheses = self._first(scale) if survivors is None else self._enlarged(*survivors, scale)
            for number, current in enumerate(rounds):
                latest = run_passes(
                    self._solver(current, scale, hypotheses),
                    current.passes,
                    scale.measurement.repeated(len(hypotheses.kernel) // images),
                    hypotheses.kernel,
                    generator,
                    consistency=self.config.consistency,
                    image=hypotheses.image,
                    stage=scale.name,
                    hooks=hooks,
                )
                latest.trace[:0] = hypotheses.trace
                if number == 0:
                    results, starts = latest, hypotheses.start
                else:
                    results = together(results, latest, images)
                    both = [part.view(images, -1) for part in (starts, hypotheses.start)]
                    starts = torch.cat(both, 1).flatten()
                if number + 1 < len(rounds):
                    best = choose(latest, scale.measurement.sigma, current.keep)
                    kept = latest.pick(best)
                    hypotheses = _Hypotheses(kept.parameters, kept.image, kept.trace, hypotheses.start[best])
            if len(self.config.starts) > 1:
                turned = None
                if survivors is None:
                    results, turned = with_turned(results, images)
                    starts = starts.view(images, -1).repeat(1, 2).flatten()
                operator = self.operator(scale.kernel_size, mask=scale.measurement.mask, fixed=True)
                seed = generator.initial_seed()
                arguments = trial(self.prior, operator, scale.measurement, results.parameters, seed)
                tried = run_passes(**arguments, stage=scale.name, hooks=hooks)
                results = _judged(results, tried, turned)
            score = plausibility(results).view(images, -1)
            best = most_plausible(score, rounds[-1].keep)
            kept = results.pick(best)
            if rounds[-1].keep == 1:
                merged = merged_kernels(results.parameters, score, best, len(latest.residual) // images)
                kept = replace(kept, parameters=merged)
            survivors = kept, starts[best]
        assert survivors is not None  # there is at least one scale
        return survivors[0]

    def _scale(self, measurement: Measurement, kernel_size: int, factor: int) -> _Scale:
        if factor == 1:
            return _Scale(measurement, kernel_size, "kernel search")
        reduced = Measurement(
            F.avg_pool2d(measurement.y, factor),
            (measurement.sigma / factor).clamp_min(self.config.sigma_floor),
            shrink_mask(measurement.mask, factor),
            measurement.circular,
        )
        return _Scale(reduced, reduced_kernel(kernel_size, factor), f"kernel search at 1/{factor} size")

    def _first(self, scale: _Scale) -> _Hypotheses:
        """All starts for every image."""
        images, y = len(scale.measurement), scale.measurement.y
        start = torch.arange(len(self.config.starts), device=y.device).repeat(images)
        return _Hypotheses(self._first_kernels(scale).repeat(images, 1, 1, 1), None, [], start)

    def _first_kernels(self, scale: _Scale) -> Tensor:
        """The kernels (H, 1, K, K) of the starts."""
        size = scale.kernel_size
        widths = (start.width * size for start in self.config.starts)
        kernels = [gaussian_kernel(size, width) if width else delta_kernel(size) for width in widths]
        return torch.cat(kernels).to(scale.measurement.y)

    @staticmethod
    def _enlarged(survivors: Candidates, start: Tensor, scale: _Scale) -> _Hypotheses:
        """The survivors of the scale before, at twice the size."""
        kernel = resize_kernel(survivors.parameters, scale.kernel_size, 2.0)
        image = F.interpolate(survivors.image, scale.measurement.size, mode="bicubic")
        return _Hypotheses(kernel, image, survivors.trace, start)

    def _solver(self, current: Round, scale: _Scale, hypotheses: _Hypotheses) -> LatentDEM:
        """The solver of a round, for all hypotheses at once."""
        operator = self.operator(
            scale.kernel_size,
            self.denoiser.denoise,
            replace(current.hqs, noise_level=self._of_start("level", hypotheses.start)),
            scale.measurement.mask,
        )
        e_step = self.e_step or Proximal(
            ModellingError(self._of_start("modelling_error", hypotheses.start, self.num_samples))
        )
        return LatentDEM(
            self.prior,
            operator,
            e_step,
            skip=self.skip,
            num_samples=self.num_samples,
            m_step_from=[self.config.starts[start].m_step_from for start in hypotheses.start.tolist()],
            hypotheses=len(hypotheses.kernel) // len(scale.measurement),
        )

    def _of_start(self, name: str, start: Tensor, repeats: int = 1) -> Any:
        """A setting of the hypotheses as a tensor, `repeats` times each; None where a start has none."""
        values = [getattr(one, name) for one in self.config.starts]
        if None in values:
            return None
        return torch.tensor(values, device=start.device)[start].repeat_interleave(repeats)


def _judged(results: Candidates, tried: Candidates, turned: Tensor | None) -> Candidates:
    """The results with the evidence of their trial; turned ones get its image, having none of their own."""
    results = replace(results, evidence=tried.evidence, variance=tried.variance)
    if turned is None:
        return results
    image = torch.where(turned[:, None, None, None], tried.image, results.image)
    return replace(results, image=image, residual=torch.where(turned, tried.residual, results.residual))


def shrink_mask(mask: Tensor | None, factor: int) -> Tensor | None:
    """A reduced mask: a pixel counts as measured when all pixels under it were."""
    return None if mask is None else (F.avg_pool2d(mask, factor) > 0.999).to(mask.dtype)
