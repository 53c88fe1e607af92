from __future__ import annotations

from latentdem import PAPER, Posterior, Settings, Skip
from latentdem.solver.schedules import EVERY_STEP


def test_parts_of_the_posterior_e_step_can_be_left_out() -> None:
    whole = Settings(e_step="posterior").config()
    bare = Settings(e_step="posterior", without=("annealing", "gluing", "skipping")).config()
    assert whole.e_step == Posterior()
    assert whole.skip == Skip()
    assert bare.e_step == bare.known.e_step == Posterior(annealing=None, gluing=0.0)
    assert bare.skip == bare.known.skip == EVERY_STEP
    assert bare.search == PAPER
