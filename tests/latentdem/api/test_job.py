from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from latentdem import PAPER, Posterior, Skip
from latentdem.api.job import Job
from latentdem.solver.schedules import EVERY_STEP

Scene = Callable[..., Tensor]


def test_parts_of_the_posterior_e_step_can_be_left_out(scene: Scene) -> None:
    whole = Job(scene(), 9, e_step="posterior").plan()
    parts = ("annealing", "gluing", "skipping")
    bare = Job(scene(), 9, e_step="posterior", without=parts).plan()
    assert whole.e_step == Posterior()
    assert whole.skip == Skip()
    assert bare.e_step == bare.known.e_step == Posterior(annealing=None, gluing=0.0)
    assert bare.skip == bare.known.skip == EVERY_STEP
    assert bare.recipe == PAPER
