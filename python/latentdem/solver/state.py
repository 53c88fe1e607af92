"""The state of the solver after a step, and its entry in a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TraceStep:
    """One full EM step.

    Attributes:
        stage: name of the stage the step belongs to, such as "half size, pass 1".
        t: diffusion timestep, counting down within a pass.
        residual: (B,) root mean square of y - A x0, in the units of the image range [-1, 1].
        parameters: (B, ...) of the operator after the M-step of this step; for a blur these are its kernels
            (B, 1, K, K).
    """

    stage: str
    t: int
    residual: Tensor
    parameters: Tensor


def on_host(steps: Sequence[TraceStep]) -> list[TraceStep]:
    """Steps of one run on the CPU, by one copy of all residuals and one of all parameters."""
    if not steps or steps[0].residual.device.type == "cpu":
        return list(steps)
    residuals, parameters = (
        torch.stack([getattr(step, name) for step in steps]).cpu() for name in ("residual", "parameters")
    )
    return [TraceStep(s.stage, s.t, r, p) for s, r, p in zip(steps, residuals, parameters, strict=True)]


@dataclass
class State:
    """The state of the solver after a full EM step; the run continues with its `latents` and `parameters`.

    Attributes:
        latents: (B S, c, h, w) latents of the next step, S posterior samples per image.
        parameters: (B, ...) of the operator.
        clean: (B S, c, h, w) clean latents z0 that were predicted at this step.
        step: its entry in a trace.
        warm_start: that of the operator, see `Operator`.
    """

    latents: Tensor
    parameters: Tensor
    clean: Tensor
    step: TraceStep
    warm_start: Tensor | None = None
