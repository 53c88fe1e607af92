"""Weights of the fused noise prediction."""

from __future__ import annotations

import pytest
import torch

from latentdem.three_d.fusion import FUSION, fusion_weights


@pytest.mark.parametrize("views", [1, 2, 3, 20])
@pytest.mark.parametrize("error", [0.0, 0.7, 10.0])
def test_weights_are_shares(views, error):
    weights = fusion_weights(views, error)
    assert weights.shape == (views,)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def test_two_views_are_those_of_the_paper():
    nu2, s2 = 3.0, 2.0
    gamma = s2 / (2 * s2 + nu2)
    torch.testing.assert_close(fusion_weights(2, nu2 / s2), torch.tensor([1 - gamma, gamma]))


def test_the_first_view_leads_early_and_all_count_alike_at_the_end():
    assert fusion_weights(3, FUSION(999))[0] > 0.8
    torch.testing.assert_close(fusion_weights(3, FUSION(0)), torch.full((3,), 1 / 3))
    first = [float(fusion_weights(3, FUSION(t))[0]) for t in range(999, -1, -50)]
    assert first == sorted(first, reverse=True)
