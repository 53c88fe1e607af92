"""Layers of the view network against their definitions."""

from __future__ import annotations

import torch

from latentdem.three_d.priors.layers import Exchange


def test_untrained_exchange_makes_no_corrections():
    assert not Exchange(6, 8, 3)(torch.randn(2, 3, 6, 5, 5)).any()


def test_exchange_compares_with_the_mean_of_the_others():
    torch.manual_seed(0)
    exchange, features = Exchange(6, 8, 3).double(), torch.randn(2, 3, 6, 5, 4, dtype=torch.float64)
    torch.nn.init.normal_(exchange.correction.weight)
    corrections = exchange(features)
    for k in range(2):
        for i in range(3):
            others = torch.stack([features[k, j] for j in range(3) if j != i]).mean(0)
            hidden = exchange.own(features[k, i][None]) + exchange.others(others[None])
            expected = exchange.correction(exchange.body(hidden))[0]
            torch.testing.assert_close(corrections[k, i], expected)
