"""How a measurement is restored: the constants of every part of the run, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..operators.blur import HQS
from ..search.config import PAPER, SearchConfig
from ..solver.e_step import EStep, Posterior
from ..solver.schedules import EVERY_STEP, Skip
from .image import KnownKernelConfig


@dataclass(frozen=True)
class RestorationConfig:
    """What `Job` does; the default is this package's method.

    Attributes:
        recipe: constants of the blind search.
        known: how the image is restored with a known kernel.
        e_step: of the search; None for `Proximal` with each hypothesis's modelling error.
        skip: which steps of the search are full ones.
        again: whether the image is restored anew after the search, or the search's own image is the result.
    """

    recipe: SearchConfig = SearchConfig()
    known: KnownKernelConfig = KnownKernelConfig()
    e_step: EStep | None = None
    skip: Skip = EVERY_STEP
    again: bool = True

    def with_steps(self, steps: int) -> RestorationConfig:
        """The same with passes of `steps` per 1000 timesteps."""
        coarse, fine = (
            tuple(_with_steps(each, steps) for each in rounds)
            for rounds in (self.recipe.coarse, self.recipe.fine)
        )
        recipe = replace(self.recipe, coarse=coarse, fine=fine)
        return replace(self, recipe=recipe, known=_with_steps(self.known, steps))


def algorithm_1(
    e_step: EStep | None = None, skip: Skip | None = None, hqs: HQS | None = None, again: bool = False
) -> RestorationConfig:
    """Algorithm 1 with the paper's constants, or these in their place."""
    e_step, skip = e_step or Posterior(), skip or Skip()
    recipe = PAPER if hqs is None else replace(PAPER, coarse=(replace(PAPER.coarse[0], hqs=hqs),))
    known = KnownKernelConfig(PAPER.coarse[0].passes, e_step, skip, 1)
    return RestorationConfig(recipe, known, e_step, skip, again)


def _with_steps(each: Any, steps: int) -> Any:
    """A `Round` or `KnownKernelConfig` whose passes take `steps` per 1000 timesteps."""
    return replace(each, passes=tuple(replace(one, steps=steps) for one in each.passes))
