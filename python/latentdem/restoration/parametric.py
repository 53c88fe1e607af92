"""ImageRestoration with any operator of named parameters: a search for them, then the image."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..operators import Parametric
from ..priors.base import LatentPrior
from ..solver.data_weight import DataWeight, MaximumLikelihood, ModellingError, MostCautious
from ..solver.e_step import Proximal
from ..solver.latentdem import LatentDEM
from ..solver.passes import Candidates, Hooks, Pass, full_steps, run_passes
from ..solver.schedules import EVERY_STEP
from ..solver.state import TraceStep

SEARCH = (Pass(30), Pass(40, 600))
FINAL = (Pass(30),)
_HYPOTHESES = 4  # noise and all else of the search that chance decides, in one batch
_SAMPLES = 4  # that the image is the mean of
_NEVER = -1  # above every timestep at which the M-step may run
_ITERATIONS = 8  # of conjugate gradients per E-step, where there is no closed form


@dataclass(frozen=True)
class ParametricRestoration:
    """One job for an operator that is not a blur with one kernel; the image is restored as a whole.

    Attributes:
        prior: latent diffusion prior.
        operator: its `fixed` parameters are known.
        seed: of all randomness.
        search: passes of the search for parameters.
        final: passes of the restoration with them.
    """

    prior: LatentPrior
    operator: Parametric
    seed: int
    search: tuple[Pass, ...] = SEARCH
    final: tuple[Pass, ...] = FINAL

    def run(self, y: Tensor, sigma: Tensor, parameters: Tensor, hooks: Hooks) -> Candidates:
        """Restores measurements of one size.

        Args:
            y: (B, C, h, w); sigma: (B,); parameters: (B, P), the unknown ones as they are to start from.
            hooks: what is told about the run while it goes on.
        """
        generator = torch.Generator(y.device).manual_seed(self.seed)
        known = self.operator.parameters.keys() <= self.operator.fixed
        trace: list[TraceStep] = []
        data_weight: DataWeight = (
            MaximumLikelihood() if known or not self.operator.amplifies else MostCautious()
        )
        if self.operator.ambiguous or not known:
            found = self._search(y, sigma, parameters, generator, hooks)
            if self.operator.ambiguous:
                return found
            parameters, trace = found.parameters, found.trace
        generator.manual_seed(self.seed)
        e_step = Proximal(data_weight, iterations=_ITERATIONS)
        solver = LatentDEM(self.prior, self.operator, e_step, num_samples=_SAMPLES, m_step_from=_NEVER)
        restored = self._passes(
            solver, self.final, y, sigma, parameters, generator, data_weight, "restoration", hooks
        )
        return replace(restored, trace=trace or restored.trace)

    def _search(
        self, y: Tensor, sigma: Tensor, parameters: Tensor, generator: torch.Generator, hooks: Hooks
    ) -> Candidates:
        """The hypothesis of each image that explains it best."""
        e_step = Proximal(ModellingError(), iterations=_ITERATIONS)
        solver = LatentDEM(self.prior, self.operator, e_step, m_step_from=950, hypotheses=_HYPOTHESES)
        many = [each.repeat_interleave(_HYPOTHESES, 0) for each in (y, sigma, parameters)]
        found = self._passes(
            solver, self.search, many[0], many[1], many[2], generator, ModellingError(1.0), "search", hooks
        )
        residual = torch.nan_to_num(found.residual, nan=torch.inf).view(len(y), _HYPOTHESES)
        first = torch.arange(len(y), device=y.device) * _HYPOTHESES
        return found.pick(first + residual.argmin(1))

    def _passes(
        self,
        solver: LatentDEM,
        passes: tuple[Pass, ...],
        y: Tensor,
        sigma: Tensor,
        parameters: Tensor,
        generator: torch.Generator,
        data_weight: DataWeight,
        stage: str,
        hooks: Hooks,
    ) -> Candidates:
        return run_passes(
            solver,
            self.operator,
            passes,
            y,
            parameters,
            sigma,
            generator,
            consistency=data_weight,
            stage=stage,
            hooks=hooks,
        )

    def work(self, y: Tensor) -> int:
        """What `Hooks.on_work` will have counted in the end."""
        known, steps = self.operator.parameters.keys() <= self.operator.fixed, 0
        if self.operator.ambiguous or not known:
            steps += _HYPOTHESES * full_steps(self.search, EVERY_STEP)
        if not self.operator.ambiguous:
            steps += _SAMPLES * full_steps(self.final, EVERY_STEP)
        return y[:, 0].numel() * steps
