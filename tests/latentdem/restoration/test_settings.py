from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdem import PAPER, Posterior, Settings, Skip, UserError
from latentdem.solver.passes import Pass
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
        ({"seed": 2**64}, "The seed is a whole number of at most 64 bits"),
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
    settings = Settings(seed=np.int64(3), steps=np.int32(4))  # type: ignore[arg-type]
    assert settings.steps == 4
    assert torch.Generator().manual_seed(settings.seed).initial_seed() == 3


def test_qualities_go_from_coarse_steps_to_finer_ones_at_lower_timesteps() -> None:
    steps = {
        quality: Settings(quality=quality).config().known.steps() for quality in ("fast", "balanced", "best")
    }
    assert steps == {"fast": 3, "balanced": 8, "best": 4 * 13}
    for config in (Settings().config().known, Settings().config().tiles):
        starts, fineness = zip(*((one.start, one.steps) for one in config.passes), strict=True)
        assert starts[0] == 999
        assert list(starts) == sorted(starts, reverse=True)
        assert list(fineness) == sorted(fineness)


def test_a_given_number_of_steps_is_one_restoration_from_noise_on() -> None:
    config = Settings(steps=7).config()
    assert config.known.passes == config.tiles.passes == (Pass(7),)
    assert config.known.num_samples == 4
