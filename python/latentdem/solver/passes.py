"""Passes of the solver at one scale, each followed by a consistency step in pixel space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .checkpoint import Checkpoint
from .data_weight import DataWeight, Prediction, most_likely
from .latentdem import LatentDEM
from .measurement import Measurement
from .schedules import Skip, timesteps
from .state import State, TraceStep, on_host

_DECODED_VARIANCE = 0.007  # of the error of D(z0), where it is not estimated


@dataclass(frozen=True)
class Pass:
    """One reverse diffusion: `steps` per 1000 timesteps, from timestep `start` down.

    A start below 999 re-noises the image of the pass before.
    """

    steps: int
    start: int = 999


def full_steps(passes: tuple[Pass, ...], skip: Skip) -> int:
    """Number of full EM steps of `passes`."""
    count = 0
    for current in passes:
        t_before = current.start + skip.every
        for t, _ in timesteps(current.steps, current.start):
            count += skip.full(t, t_before)
            t_before = t
    return count


Progress = Callable[[str, int, int], None]  # called as progress(stage, done, total)


class WorkCounter:
    """Turns the pixels that full EM steps have gone through into calls of `progress`.

    Args:
        total: pixels of the whole run, as far as they are known.
        progress: None for nothing to call.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, stage: str, pixels: int) -> None:
        """Counts a full EM step."""
        self._done += pixels
        if self._progress is not None:
            self._progress(stage, min(self._done, self._total), self._total)

    def extend(self, pixels: int) -> None:
        """Adds pixels that turned out to be needed to the total."""
        self._total += pixels

    def finish(self, stage: str) -> None:
        """Counts what turned out not to be needed, such as pixels of a padded grid for a larger kernel."""
        if self._done < self._total:
            self(stage, self._total - self._done)


class WorkBudget:
    """Counts the pixels of one part of a run; those that turn out not to be needed are counted at once.

    Args:
        pixels: of the part, at most; more are not counted.
        hooks: what follows the run.
    """

    def __init__(self, pixels: int, hooks: Hooks) -> None:
        self._left, self._hooks = pixels, hooks

    def __call__(self, stage: str, pixels: int) -> None:
        """Counts a full EM step."""
        pixels = min(pixels, self._left)
        self._left -= pixels
        if self._hooks.on_work is not None and pixels:
            self._hooks.on_work(stage, pixels)

    def extend(self, pixels: int) -> None:
        """Allows for more pixels, which turned out to be needed."""
        self._left += pixels
        if self._hooks.on_more is not None:
            self._hooks.on_more(pixels)

    def spend(self, stage: str) -> None:
        """Counts all that is left."""
        self(stage, self._left)


@dataclass(frozen=True)
class Hooks:
    """What follows a run while it goes on.

    Attributes:
        on_work: called after every full EM step with the name of the stage and the pixels of the step.
        on_more: called with the pixels of a part of the run that turns out to be needed, before it.
        on_step: then called with the solver's state, which it may change.
        checkpoint: where the run is saved, so that it can be resumed.
    """

    on_work: Callable[[str, int], None] | None = None
    on_more: Callable[[int], None] | None = None
    on_step: Callable[[State], None] | None = None
    checkpoint: Checkpoint | None = None


NO_HOOKS = Hooks()


@dataclass
class Candidates:
    """Restorations of B images under H hypotheses each, N = B * H, those of one image next to each other.

    Attributes:
        image: (N, 3, H, W) in [-1, 1]; residual: (N,) root mean square of y - A x.
        spread: (N, 3, H, W) standard deviation of the posterior samples; None where it was not asked for.
        parameters: (N, ...) of the operator; for a blur these are its kernels (N, 1, K, K).
        evidence: (N,) log-likelihood of the measurement given the diffusion's clean image, see `most_likely`.
        variance: (N,) variance of what the model does not explain, at least that of the sensor's noise.
        trace: the steps of all N that led to these candidates, on the CPU.
    """

    image: Tensor
    parameters: Tensor
    residual: Tensor
    evidence: Tensor
    variance: Tensor
    trace: list[TraceStep]
    spread: Tensor | None = None

    def pick(self, index: Tensor) -> Candidates:
        """The candidates `index` (M,), with their own histories."""
        rows = index.cpu()
        trace = [TraceStep(s.stage, s.t, s.residual[rows], s.parameters[rows]) for s in self.trace]
        return Candidates(
            self.image[index],
            self.parameters[index],
            self.residual[index],
            self.evidence[index],
            self.variance[index],
            trace,
        )


def join(parts: list[Candidates]) -> Candidates:
    """One batch of candidates that were restored one after the other, with equal steps."""
    trace = [
        TraceStep(
            steps[0].stage,
            steps[0].t,
            torch.cat([step.residual for step in steps]),
            torch.cat([step.parameters for step in steps]),
        )
        for steps in zip(*(part.trace for part in parts), strict=True)
    ]
    image, parameters, residual, evidence, variance = (
        _together([getattr(part, name) for part in parts])
        for name in ("image", "parameters", "residual", "evidence", "variance")
    )
    spreads = [part.spread for part in parts if part.spread is not None]
    spread = torch.cat(spreads) if len(spreads) == len(parts) else None
    return Candidates(image, parameters, residual, evidence, variance, trace, spread)


def _together(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]  # large photographs are not copied


def run_passes(
    solver: LatentDEM,
    passes: tuple[Pass, ...],
    measurement: Measurement,
    parameters: Tensor,
    generator: torch.Generator,
    *,
    consistency: DataWeight,
    image: Tensor | None = None,
    latents: Tensor | None = None,
    stage: str = "",
    hooks: Hooks = NO_HOOKS,
    measure_spread: bool = False,
) -> Candidates:
    """Runs `passes` one after the other; each starts from the parameters and image of the one before.

    Args:
        measurement: of N entries, on the grid of the solver's operator.
        parameters: (N, ...) to start from.
        generator: the only source of randomness.
        consistency: gives v / r^2 of the pixel-space step argmin_x ||y - A x||^2 / v + ||x - D(z0)||^2 / r^2
            after each pass, which lifts the result above what the autoencoder can represent.
        image: (N, 3, H, W) for a first pass that does not start from noise.
        latents: noise that the first pass starts from; None draws it.
        stage: name of the stage in the trace and for `hooks`.
        hooks: what follows the run.
        measure_spread: whether the spread of the last pass's samples is wanted, which takes a pixel-space step
            of each.
    """
    operator, y, sigma = solver.operator, measurement.y, measurement.sigma
    variance, r2 = sigma.square(), torch.full_like(sigma, _DECODED_VARIANCE)
    trace: list[TraceStep] = []
    latest: list[TraceStep] = []  # of the pass that goes on, on the device

    def record_step(step: TraceStep) -> None:
        latest.append(step)
        if hooks.on_work is not None:
            hooks.on_work(stage, y[:, 0].numel() * solver.num_samples)

    def record(state: State) -> None:
        record_step(state.step)
        if hooks.on_step is not None:
            hooks.on_step(state)

    run = solver if hooks.checkpoint is None else partial(hooks.checkpoint.run, solver, record_step)

    for number, current in enumerate(passes, 1):
        image, parameters = run(
            y,
            parameters,
            sigma,
            generator=generator,
            steps=current.steps,
            start=current.start,
            image=image,
            latents=latents,
            stage=f"{stage}, pass {number}" if len(passes) > 1 else stage,
            on_step=record,
        )
        trace += on_host(latest)
        latest.clear()
        latents = None
        operator.warm_start = None  # that of the pass before, if this pass was read from a checkpoint
        model, _, evidence = most_likely(operator, image, parameters, y, variance)
        rho = consistency(Prediction(operator, image, parameters, y, variance, r2))
        image = operator.proximal(image, parameters, y, rho).clamp(-1, 1)
    if image is None:
        raise ValueError("at least one pass is needed")
    residual = operator.residual(image, parameters, y)
    spread = None
    if measure_spread and solver.samples is not None:
        moved = [operator.proximal(sample, parameters, y, rho) for sample in solver.samples.unbind(1)]
        spread = torch.stack(moved).std(0)
    return Candidates(image, parameters, residual, evidence, model, trace, spread)
