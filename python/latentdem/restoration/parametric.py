"""Restoration with any operator of named parameters: a search for the parameters, then the image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..operators import Parametric
from ..priors.base import LatentPrior
from ..solver.data_weight import DataWeight, MaximumLikelihood, ModellingError, MostCautious
from ..solver.e_step import Proximal
from ..solver.latentdem import LatentDEM
from ..solver.measurement import Measurement
from ..solver.passes import Candidates, Hooks, Pass, full_steps, run_passes
from ..solver.schedules import EVERY_STEP
from ..solver.state import TraceStep

SEARCH = (Pass(30), Pass(40, 600))
FINAL = (Pass(30),)
_HYPOTHESES = 4  # of the search, in one batch: the same start with different noise
_SAMPLES = 4  # posterior samples; the image is their mean
_NO_M_STEP = -1  # `m_step_from` below every timestep
_CG_ITERATIONS = 8  # of conjugate gradients per E-step, where there is no closed form


@dataclass(frozen=True)
class ParametricRestoration:
    """The restoration for an operator that is not a blur with one kernel; the image is restored as a whole.

    Attributes:
        prior: latent diffusion prior.
        operator: forward operator, whose `fixed` parameters are known.
        seed: random seed.
        search: passes of the search for parameters.
        final: passes of the restoration with them.
    """

    prior: LatentPrior
    operator: Parametric
    seed: int
    search: tuple[Pass, ...] = SEARCH
    final: tuple[Pass, ...] = FINAL

    def with_steps(self, steps: int) -> ParametricRestoration:
        """The same with passes of `steps` per 1000 timesteps."""
        search, final = (tuple(Pass(steps, one.start) for one in part) for part in (self.search, self.final))
        return replace(self, search=search, final=final)

    def run(self, measurement: Measurement, parameters: Tensor, hooks: Hooks) -> Candidates:
        """Restores measurements of one size.

        Args:
            measurement: of B images.
            parameters: (B, P), the unknown ones with their initial values.
            hooks: what follows the run.
        """
        generator = torch.Generator(measurement.y.device).manual_seed(self.seed)
        trace: list[TraceStep] = []
        data_weight: DataWeight = MaximumLikelihood()
        if not self._known and self.operator.amplifies:
            data_weight = MostCautious()
        if self.operator.ambiguous or not self._known:
            candidates = self._search(measurement, parameters, generator, hooks)
            if self.operator.ambiguous:
                return candidates
            parameters, trace = candidates.parameters, candidates.trace
        generator.manual_seed(self.seed)
        e_step = Proximal(data_weight, iterations=_CG_ITERATIONS)
        solver = LatentDEM(self.prior, self.operator, e_step, num_samples=_SAMPLES, m_step_from=_NO_M_STEP)
        restored = run_passes(
            solver,
            self.final,
            measurement,
            parameters,
            generator,
            consistency=data_weight,
            stage="restoration",
            hooks=hooks,
        )
        return replace(restored, trace=trace or restored.trace)

    @property
    def _known(self) -> bool:
        """Whether all parameters are known."""
        return self.operator.parameters.keys() <= self.operator.fixed

    def _search(
        self, measurement: Measurement, parameters: Tensor, generator: torch.Generator, hooks: Hooks
    ) -> Candidates:
        """The hypothesis of each image that explains it best."""
        e_step = Proximal(ModellingError(), iterations=_CG_ITERATIONS)
        solver = LatentDEM(self.prior, self.operator, e_step, m_step_from=950, hypotheses=_HYPOTHESES)
        candidates = run_passes(
            solver,
            self.search,
            measurement.repeated(_HYPOTHESES),
            parameters.repeat_interleave(_HYPOTHESES, 0),
            generator,
            consistency=ModellingError(1.0),
            stage="search",
            hooks=hooks,
        )
        images = len(measurement)
        residual = torch.nan_to_num(candidates.residual, nan=torch.inf).view(images, _HYPOTHESES)
        first = torch.arange(images, device=residual.device) * _HYPOTHESES
        return candidates.pick(first + residual.argmin(1))

    def work(self, y: Tensor) -> int:
        """Pixels of all full EM steps together, as `Hooks.on_work` counts them."""
        steps = 0
        if self.operator.ambiguous or not self._known:
            steps += _HYPOTHESES * full_steps(self.search, EVERY_STEP)
        if not self.operator.ambiguous:
            steps += _SAMPLES * full_steps(self.final, EVERY_STEP)
        return y[:, 0].numel() * steps
