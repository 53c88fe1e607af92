"""The choice among densities over camera poses."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem.operators import Blur
from latentdem.priors import EmbeddedPrior
from latentdem.search import varying_choice
from latentdem.search.camera_poses import KernelField
from latentdem.search.layout import Layout
from latentdem.search.varying_choice import choice_work, most_plausible_field
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import NO_HOOKS, Hooks

Scene = Callable[..., Tensor]


def field(row: int) -> KernelField:
    """A camera that stands still, `row` pixels below the middle at one of two rolls."""
    weights = torch.zeros(2, 7, 7)
    weights[0, 3, 3] = weights[1, 3 + row, 3] = 0.5
    return KernelField(weights, torch.tensor([0.0, 0.02]), (200, 170))


@pytest.mark.parametrize(("scores", "best"), [((-6, -5, -5.1), 2), ((-6, -5.1, -5), 1)])
def test_the_best_score_wins_among_those_with_the_evidence_of_all_corners(
    scores: tuple[float, ...],
    best: int,
    scene: Scene,
    tiny_prior: EmbeddedPrior,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence = iter([[0.0, 0.03, 0.02], [0.02, 0.0, 0.01], [0.0, 0.01, 0.0], [0.0, 0.03, 0.05]])
    sizes: list[tuple[int, int]] = []

    def run(measurement: Measurement, **_: Any) -> SimpleNamespace:
        assert measurement.mask is not None
        rows, columns = measurement.measured_window
        sizes.append((rows.stop - rows.start, columns.stop - columns.start))
        return SimpleNamespace(evidence=torch.tensor(next(evidence)))

    monkeypatch.setattr(varying_choice, "run_passes", run)
    photograph = Measurement(scene(200, 170), torch.tensor([0.02]), None, circular=False)
    fields = [field(0), field(1), field(2)]
    by_field = dict(zip(map(id, fields), scores, strict=True))
    monkeypatch.setattr(varying_choice, "field_score", lambda _, one: by_field[id(one)])
    assert most_plausible_field(tiny_prior, Blur, photograph, fields, 0, NO_HOOKS) is fields[best]
    assert sizes == [(128, 128)] * 4


def test_the_work_is_that_of_the_trials(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    done: list[int] = []
    hooks = Hooks(lambda _, pixels: done.append(pixels))
    photograph = Measurement(scene(40, 52), torch.tensor([0.02]), None, circular=False)
    fields = [field(0), field(1)]
    most_plausible_field(tiny_prior, Blur, photograph, fields, 0, hooks)
    assert sum(done) == choice_work(Layout.of(photograph, 7), len(fields))
