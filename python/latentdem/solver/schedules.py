"""Schedules, keyed on the training timestep t (1000 counting down), never on the index of a step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import overload

from torch import Tensor


@dataclass(frozen=True)
class Annealing:
    """zeta_t of the annealing consistency: linear from `start` at t = 1000 to `end` at `t_end`, then `end`.

    Paper: arXiv Sec. 4.2, zeta from 10 to 1 at t = 600. `Annealing(1, 1)` switches annealing off.
    For t as a tensor () on a device, so is the result.
    """

    start: float = 10.0
    end: float = 1.0
    t_end: int = 600

    @overload
    def __call__(self, t: int) -> float: ...
    @overload
    def __call__(self, t: int | Tensor) -> float | Tensor: ...
    def __call__(self, t: int | Tensor) -> float | Tensor:
        span = 1000 - self.t_end
        if isinstance(t, Tensor):
            fraction: float | Tensor = ((t.double() - self.t_end) / span).clamp(0.0, 1.0)
        else:
            fraction = min(max((t - self.t_end) / span, 0.0), 1.0)
        return self.end + (self.start - self.end) * fraction


@dataclass(frozen=True)
class Skip:
    """Skip gradient: above `threshold` (S_T) a full EM step only when t passes a multiple of `every` (K).

    Paper: arXiv Sec. 4.2, S_T = 500, K = 8. With steps wider than `every` every step is a full one.
    `EVERY_STEP` never skips.
    """

    threshold: int = 500
    every: int = 8

    def full(self, t: int, t_before: int) -> bool:
        """Whether the step at `t`, reached from the higher timestep `t_before`, is a full EM step."""
        return t <= self.threshold or -(-t // self.every) < -(-t_before // self.every)


EVERY_STEP = Skip(1000, 1)


def timesteps(steps: int, start: int = 999) -> list[tuple[int, int]]:
    """Pairs (t, next t) evenly spaced from `start` down; the last next t is -1 (no noise left).

    `steps` is how many steps cover the whole range of 1000; a later start takes the proportional share.
    """
    count = max(1, round(steps * (start + 1) / 1000))
    times = [round((start + 1) * (count - i) / count) - 1 for i in range(count + 1)]
    return list(pairwise(times))
