from __future__ import annotations

import pytest

from latentdem.solver.schedules import EVERY_STEP, Annealing, Skip, timesteps


def test_annealing_of_the_paper() -> None:
    zeta = Annealing()
    assert [zeta(t) for t in (1000, 800, 600, 599, 1)] == pytest.approx([10, 5.5, 1, 1, 1])


def test_annealing_can_end_below_one() -> None:
    assert Annealing(10, 0.8, 600)(0) == pytest.approx(0.8)


def test_skip_with_unit_steps_is_the_rule_of_the_paper() -> None:
    skip = Skip(500, 8)
    full = [t for t in range(999, -1, -1) if skip.full(t, t + 1)]
    assert full == [t for t in range(999, -1, -1) if t <= 500 or t % 8 == 0]


def test_skip_means_the_same_for_few_steps() -> None:
    """With steps of 20 every step passes a multiple of 8, with steps of 4 every other one does."""
    assert all(Skip(500, 8).full(t, t + 20) for t in range(979, 500, -20))
    assert [Skip(0, 8).full(t, t + 4) for t in (96, 92, 88)] == [True, False, True]


def test_every_step_never_skips() -> None:
    assert all(EVERY_STEP.full(t, t + 1) for t in range(1000))


@pytest.mark.parametrize(("steps", "start"), [(1000, 999), (50, 999), (7, 999), (60, 500), (1, 999), (3, 10)])
def test_timesteps_lead_from_start_to_the_clean_image(steps: int, start: int) -> None:
    pairs = timesteps(steps, start)
    assert pairs[0][0] == start
    assert pairs[-1][1] == -1
    assert all(t > t_next for t, t_next in pairs)
    assert [t for t, _ in pairs[1:]] == [t_next for _, t_next in pairs[:-1]]
    assert len(pairs) == max(1, round(steps * (start + 1) / 1000))
