"""Weights of the fused noise prediction."""

from __future__ import annotations

import pytest
import torch

from latentdem.three_d.fusion import CORRELATION, FUSION, fuse, fusion_weights


@pytest.mark.parametrize("views", [1, 2, 3, 20])
@pytest.mark.parametrize("error", [0.0, 0.7, 10.0])
def test_weights_sum_to_one(views, error):
    weights = fusion_weights(views, error)
    assert weights.shape == (views,)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def test_two_views_are_those_of_the_paper():
    nu2, s2 = 3.0, 2.0
    gamma = s2 / (2 * s2 + nu2)
    torch.testing.assert_close(fusion_weights(2, nu2 / s2), torch.tensor([1 - gamma, gamma]))


def test_the_first_view_dominates_early_and_all_are_equal_at_the_end():
    assert fusion_weights(3, FUSION(999))[0] > 0.8
    torch.testing.assert_close(fusion_weights(3, FUSION(0)), torch.full((3,), 1 / 3))
    first = [float(fusion_weights(3, FUSION(t))[0]) for t in range(999, -1, -50)]
    assert first == sorted(first, reverse=True)


def test_views_of_equal_variance_are_fused_by_these_weights():
    noise = torch.randn(3, 4, 2, 5, 5, dtype=torch.float64)
    fused = fuse(noise, torch.full((3, 4, 1, 1, 1), 0.7, dtype=torch.float64), 2.0)
    expected = torch.einsum("n,kn...->k...", fusion_weights(4, 2.0).double(), noise)
    torch.testing.assert_close(fused, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("views", [2, 3])
def test_views_of_small_variance_have_large_weights(views):
    """Against generalised least squares with the covariance of the errors as a matrix, pixel by pixel."""
    noise = torch.randn(1, views, 3, 4, 4, dtype=torch.float64)
    deviation = 1 + 0.3 * torch.rand(1, views, 1, 4, 4, dtype=torch.float64)  # no weight is negative
    error = 1.5
    fused = fuse(noise, deviation**2, error)
    correlation = torch.full((views, views), CORRELATION, dtype=torch.float64).fill_diagonal_(1)
    for row in range(4):
        for column in range(4):
            s = deviation[0, :, 0, row, column]
            weights = torch.linalg.solve(s[:, None] * correlation * s, torch.ones(views, dtype=torch.float64))
            assert (weights > 0).all()
            weights = weights * fusion_weights(views, error).double()
            expected = torch.einsum("n,nc->c", weights / weights.sum(), noise[0, :, :, row, column])
            torch.testing.assert_close(fused[0, :, row, column], expected, rtol=1e-6, atol=1e-6)


def test_a_view_of_large_variance_is_left_out():
    noise = torch.randn(1, 3, 2, 4, 4)
    variance = torch.tensor([0.1, 0.2, 100.0]).view(1, 3, 1, 1, 1).expand(1, 3, 1, 4, 4)
    torch.testing.assert_close(fuse(noise, variance, 0.0), fuse(noise[:, :2], variance[:, :2], 0.0))
