from __future__ import annotations

import math

import pytest
import torch

from latentdem.operators.blur import shifted
from latentdem.operators.kernels import motion_kernels
from latentdem.search.selection import (
    choose,
    connectedness,
    merged_kernels,
    most_plausible,
    plausibility,
    together,
)
from latentdem.solver.passes import Candidates, join
from latentdem.solver.state import TraceStep


def candidates(energies: list[float], residuals: list[float]) -> Candidates:
    kernel = torch.zeros(len(energies), 1, 3, 3)
    kernel[:, 0, 1, 1] = torch.tensor(energies).sqrt()
    n = len(energies)
    trace = [TraceStep("s", t, torch.arange(n) + t, kernel) for t in (9, 0)]
    image = torch.arange(n).view(n, 1, 1, 1).float()
    return Candidates(
        image,
        kernel,
        torch.tensor(residuals),
        -torch.tensor(residuals),
        torch.tensor(residuals).square(),
        trace,
    )


def test_choose_takes_neither_no_blur_nor_divergence() -> None:
    found = candidates([0.02, 0.004, 0.003, 0.5, 0.1, 0.2], [0.021, 0.020, 0.06, 0.03, 0.02, 0.004])
    sigma = torch.full((2,), 0.02)
    # First image: 2 diverged, 1 has the least energy of the others. Second: 5 is the no-blur solution.
    assert choose(found, sigma, 1).tolist() == [1, 4]
    assert choose(found, sigma, 2).tolist() == [1, 0, 4, 5]
    assert choose(found, sigma, 3).tolist() == [1, 0, 2, 4, 5, 3]


def test_choose_drops_what_is_not_finite() -> None:
    found = candidates([0.001, 0.1], [float("nan"), 0.5])
    assert choose(found, torch.tensor([0.02]), 1).tolist() == [1]


def test_choose_prefers_a_kernel_in_one_piece() -> None:
    found = candidates([0.02, 0.021], [0.02, 0.02])
    found.parameters[0, 0] = torch.tensor([[0.1, 0, 0], [0, 0, 0], [0, 0, 0.1]])
    found.parameters[1, 0] = torch.tensor([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.05]])
    assert choose(found, torch.tensor([0.02]), 2).tolist() == [1, 0]


def test_connectedness() -> None:
    kernel = torch.zeros(1, 7, 7)
    kernel[0, 0, 0], kernel[0, 1, 1], kernel[0, 2, 1] = 0.2, 0.3, 0.2  # diagonal neighbours count
    kernel[0, 5, 5] = 0.2
    kernel[0, 3, 6] = 0.01  # below 5 % of the peak it belongs to no part
    assert connectedness(kernel) == pytest.approx(0.7 / 0.91)
    assert connectedness(kernel * torch.nan) == 0


def test_picked_candidates_keep_their_own_history() -> None:
    picked = candidates([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]).pick(torch.tensor([2, 0]))
    assert picked.residual.tolist() == [3.0, 1.0]
    assert [step.residual.tolist() for step in picked.trace] == [[11, 9], [2, 0]]


def test_joined_candidates_are_one_batch() -> None:
    parts = [candidates([0.1], [1.0]), candidates([0.2], [2.0])]
    joined = join(parts)
    assert joined.residual.tolist() == [1.0, 2.0]
    assert [step.residual.shape[0] for step in joined.trace] == [2, 2]


def test_plausible_is_what_is_likely_and_in_one_piece() -> None:
    found = candidates([1.0, 1.0, 1.0, 1.0], [0.0, 0.1, 0.02, float("nan")])
    found.parameters[0] = 0
    found.parameters[0, 0, 0, 0] = found.parameters[0, 0, 2, 2] = 0.5  # two pieces cost more than 0.02
    score = plausibility(found)
    assert most_plausible(score[None], 4).tolist() == [2, 0, 1, 3]
    assert score[3] == -torch.inf
    assert most_plausible(score.view(2, 2), 1).tolist() == [0, 2]


def test_hypotheses_of_two_rounds_lie_together() -> None:
    """Two images; three hypotheses in the first round, of which two made the second."""
    first = candidates([0.1] * 6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    second = candidates([0.1] * 4, [10.0, 11.0, 12.0, 13.0])
    later = [TraceStep("later", 3, torch.arange(4) + 20, second.parameters)]
    second.trace[:] = [*first.pick(torch.tensor([0, 1, 3, 4])).trace, *later]
    both = together(first, second, 2)
    assert both.residual.tolist() == [0, 1, 2, 10, 11, 3, 4, 5, 12, 13]
    assert [step.stage for step in both.trace] == ["s", "s", "later"]
    assert both.trace[1].residual.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 3, 4]
    assert both.trace[2].residual.tolist() == [0, 1, 2, 20, 21, 3, 4, 5, 22, 23]


def test_merged_kernels_average_what_agrees() -> None:
    """Two noisy, shifted estimates of one kernel and a wrong one; of the second image only the best is left."""
    truth, wrong = motion_kernels(1, 21, 0.3, 1), motion_kernels(1, 21, 0.9, 7)
    noise = 0.15 * truth.amax() * torch.rand(3, 1, 21, 21, generator=torch.Generator().manual_seed(0))
    first = shifted(truth, 2, -1) + noise[:1]
    kernels = torch.cat([wrong, first, truth + noise[1:2], wrong, truth, wrong.flip(-1)])
    kernels = kernels / kernels.sum((1, 2, 3), keepdim=True)
    score, best = torch.tensor([[0.9, 1.0, 1.0 - 0.005], [0.9, 1.0, -torch.inf]]), torch.tensor([1, 4])
    merged = merged_kernels(kernels, score, best, 3)
    expected = kernels[1] + math.exp(-1) * shifted(kernels[2], 2, -1)
    torch.testing.assert_close(merged[0], expected / expected.sum())
    torch.testing.assert_close(merged[1], kernels[4])
    # Of the round before only the best counts.
    kept = merged_kernels(kernels, score, torch.tensor([0, 4]), 1)
    torch.testing.assert_close(kept, kernels[[0, 4]])
