"""Muon: what a step is made of, on matrices and convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_singular_values_approach_one(muon, shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = muon.orthogonalised(matrices)
    assert found.shape == matrices.shape
    # The iteration leaves singular values within about 0.7 and 1.2, and the singular vectors where they are.
    for matrix, each in zip(matrices, found, strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inner = left.T @ each @ right.T
        assert ((inner.diagonal() > 0.6) & (inner.diagonal() < 1.3)).all()
        assert (inner - inner.diagonal().diag()).abs().max() < 0.05


def test_step_does_not_depend_on_the_size_of_the_gradient(muon):
    moved = []
    for scale in (2.0**-10, 2.0**10):  # exact in bfloat16
        weight = nn.Parameter(torch.zeros(3, 2, 3, 3))
        weight.grad = scale * torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(1))
        muon.Muon([weight], 0.1).step()
        moved.append(weight.detach())
    torch.testing.assert_close(*moved, rtol=0, atol=1e-4)
    # As large as a step of AdamW: 0.2 of the rate in the root mean square.
    assert 0.01 < float(moved[0].square().mean().sqrt()) < 0.03


def test_weights_of_one_shape_do_not_mix(muon):
    """Steps of several weights together are those of each alone."""
    shapes = [(4, 2, 3, 3), (5, 3), (4, 18), (4, 2, 3, 3)]
    moved = []
    for together in (True, False):
        generator = torch.Generator().manual_seed(2)
        weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        for group in [weights] if together else [[weight] for weight in weights]:
            muon.Muon(group, 0.1).step()
        moved.append([weight.detach() for weight in weights])
    torch.testing.assert_close(*moved, rtol=0, atol=1e-3)


def test_it_descends(muon):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 1)
    )
    hidden, rest = muon.hidden_weights(model, ("0.", "4."))
    assert [tuple(weight.shape) for weight in hidden] == [(8, 8, 3, 3)]
    assert len(rest) == 5
    x = torch.randn(32, 2, 4, 4)
    y = x[:, :1].abs().sum((1, 2, 3), keepdim=True).view(-1, 1) / 4
    optimizers = [muon.Muon(hidden, 0.02), torch.optim.AdamW(rest, 0.01)]
    losses = []
    for _ in range(60):
        loss = (model(x) - y).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_frozen_weights_are_left_out(muon):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    hidden, rest = muon.hidden_weights(model)
    assert [id(each) for each in (*hidden, *rest)] == [id(model[1].weight), id(model[1].bias)]
