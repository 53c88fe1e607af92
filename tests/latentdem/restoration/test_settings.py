from __future__ import annotations

import numpy as np
import pytest

from latentdem import PAPER, Posterior, Settings, Skip, UserError
from latentdem.solver.schedules import EVERY_STEP


def test_parts_of_the_posterior_e_step_can_be_left_out() -> None:
    whole = Settings(e_step="posterior").config()
    bare = Settings(e_step="posterior", without=("annealing", "gluing", "skipping")).config()
    assert whole.e_step == Posterior()
    assert whole.skip == Skip()
    assert bare.e_step == bare.known.e_step == Posterior(annealing=None, gluing=0.0)
    assert bare.skip == bare.known.skip == EVERY_STEP
    assert bare.search == PAPER


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"seed": "x"}, "The seed is a whole number, not 'x'"),
        ({"seed": None}, "The seed is a whole number, not None"),
        ({"steps": 2.5}, "The number of steps is a whole number, not 2.5"),
        ({"kernel_size": "auto"}, "The kernel size is a whole number, not 'auto'"),
        ({"num_samples": 1.0}, "The number of samples is a whole number, not 1.0"),
        ({"noise_sigma": "much"}, "noise standard deviation must be above 0"),
        ({"noise_sigma": float("nan")}, "noise standard deviation must be above 0"),
        ({"gamma": "linear"}, "Unknown tone curve 'linear'"),
    ],
)
def test_values_of_other_types_are_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Settings(**wrong)  # type: ignore[arg-type]
    assert Settings(seed=np.int64(3), steps=np.int32(4)).steps == 4
