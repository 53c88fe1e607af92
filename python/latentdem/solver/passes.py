"""Passes of the solver at one scale, each followed by a consistency step in pixel space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..operators.base import Operator
from .checkpoint import Checkpoint
from .data_weight import DataWeight, most_likely
from .latentdem import LatentDEM
from .schedules import Skip, timesteps
from .state import State, TraceStep

_DECODED_VARIANCE = 0.007  # of the error of D(z0), where it is not estimated


@dataclass(frozen=True)
class Pass:
    """One reverse diffusion: `steps` per 1000 timesteps, from timestep `start` down.

    A start below 999 re-noises the image of the pass before.
    """

    steps: int
    start: int = 999


def full_steps(passes: tuple[Pass, ...], skip: Skip) -> int:
    """How many full EM steps `passes` take."""
    count = 0
    for each in passes:
        t_before = each.start + skip.every
        for t, _ in timesteps(each.steps, each.start):
            count += skip.full(t, t_before)
            t_before = t
    return count


@dataclass(frozen=True)
class Hooks:
    """What is told about a run while it goes on.

    Attributes:
        on_work: called after every full EM step with the stage's name and the pixels it went through.
        on_step: called then with the solver's state, which may be changed.
        checkpoint: where the run is kept, to be resumed.
    """

    on_work: Callable[[str, int], None] | None = None
    on_step: Callable[[State], None] | None = None
    checkpoint: Checkpoint | None = None


NO_HOOKS = Hooks()


@dataclass
class Candidates:
    """Restorations of a batch under H hypotheses each, N = B * H, those of one image together.

    Attributes:
        image: (N, 3, H, W) in [-1, 1]; residual: (N,) root mean square of y - A x.
        parameters: (N, ...) of the operator, of a blur its kernels (N, 1, K, K).
        evidence: (N,) log-likelihood of the measurement given the diffusion's clean image, see `most_likely`.
        trace: the steps that led there, of all N.
    """

    image: Tensor
    parameters: Tensor
    residual: Tensor
    evidence: Tensor
    trace: list[TraceStep]

    def pick(self, index: Tensor) -> Candidates:
        """The candidates `index` (M,), with their own histories."""
        rows = index.cpu()
        trace = [TraceStep(s.stage, s.t, s.residual[rows], s.parameters[rows]) for s in self.trace]
        return Candidates(
            self.image[index], self.parameters[index], self.residual[index], self.evidence[index], trace
        )


def join(parts: list[Candidates]) -> Candidates:
    """One batch of candidates that were restored one after the other, with equal steps."""
    steps = zip(*(part.trace for part in parts), strict=True)
    trace = [
        TraceStep(
            same[0].stage,
            same[0].t,
            torch.cat([step.residual for step in same]),
            torch.cat([step.parameters for step in same]),
        )
        for same in steps
    ]
    image, parameters, residual, evidence = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("image", "parameters", "residual", "evidence")
    )
    return Candidates(image, parameters, residual, evidence, trace)


def run_passes(
    solver: LatentDEM,
    operator: Operator,
    passes: tuple[Pass, ...],
    y: Tensor,
    parameters: Tensor,
    noise_sigma: Tensor,
    generator: torch.Generator,
    *,
    consistency: DataWeight,
    image: Tensor | None = None,
    latents: Tensor | None = None,
    stage: str = "",
    hooks: Hooks = NO_HOOKS,
) -> Candidates:
    """Runs `passes` one after the other; every one starts from the parameters and image of the one before.

    Args:
        y: (N, C, h, w); parameters: (N, ...) to start from; noise_sigma: (N,).
        consistency: gives v / r^2 of the pixel-space step argmin_x ||y - A x||^2 / v + ||x - D(z0)||^2 / r^2
            after each pass, which lifts the result above what the autoencoder can represent.
        image: (N, 3, H, W) for a first pass that does not start from noise.
        latents: noise that the first pass starts from; None draws it.
        hooks: what is told about the run while it goes on.
    """
    trace: list[TraceStep] = []

    def keep(step: TraceStep) -> None:
        trace.append(step)
        if hooks.on_work is not None:
            hooks.on_work(stage, y[:, 0].numel() * solver.num_samples)

    def record(state: State) -> None:
        keep(state.step)
        if hooks.on_step is not None:
            hooks.on_step(state)

    run = solver if hooks.checkpoint is None else partial(hooks.checkpoint.run, solver, keep)

    for number, each in enumerate(passes, 1):
        name = f"{stage}, pass {number}" if len(passes) > 1 else stage
        image, parameters = run(
            y,
            parameters,
            noise_sigma,
            generator=generator,
            steps=each.steps,
            start=each.start,
            image=image,
            latents=latents,
            stage=name,
            on_step=record,
        )
        latents = None
        evidence = most_likely(operator, image, parameters, y, noise_sigma.square())[1]
        r2 = torch.full_like(noise_sigma, _DECODED_VARIANCE)
        rho = consistency(operator, image, parameters, y, noise_sigma.square(), 0, r2)
        image = operator.proximal(image, parameters, y, rho).clamp(-1, 1)
    if image is None:
        raise ValueError("at least one pass is needed")
    return Candidates(image, parameters, operator.residual(image, parameters, y), evidence, trace)
