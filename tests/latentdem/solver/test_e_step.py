from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import Annealed, Blur, Posterior, Proximal
from latentdem.operators.kernels import gaussian_kernel
from latentdem.solver.e_step import Move

Scene = Callable[..., Tensor]
Oracle = Callable[..., Any]
ABAR, ABAR_NEXT = 0.4, 0.5


def make_move(scene: Scene, prior: Any, t: int = 700) -> Move:
    """A step of two samples through a 'noise predictor' that is linear in z_t."""
    y = torch.cat([scene(32, 32, seed=1), scene(32, 32, seed=2)])
    kernel = gaussian_kernel(7, 1.5).repeat(2, 1, 1, 1)
    z_t = torch.randn(2, *prior.latent_shape(32, 32)).requires_grad_()
    eps = 0.7 * z_t
    z0 = (z_t - (1 - ABAR) ** 0.5 * eps) / ABAR**0.5
    x0 = prior.decode(z0, 32, 32)
    return Move(
        t,
        torch.full((2,), ABAR),
        torch.full((2,), ABAR_NEXT),
        z_t,
        eps,
        z0,
        x0,
        y,
        kernel,
        torch.tensor([4e-4, 1e-2]),
        torch.randn_like(z_t),
    )


def plain(move: Move) -> Tensor:
    return (ABAR_NEXT**0.5 * move.z0 + (1 - ABAR_NEXT) ** 0.5 * move.eps).detach()


@pytest.mark.parametrize("gluing", [0.0, 0.3])
@pytest.mark.parametrize("t", [999, 800, 300])
def test_posterior_squared_is_the_literal_gradient(scene: Scene, oracle: Oracle, gluing: float, t: int) -> None:
    prior = oracle(torch.zeros(1, 3, 32, 32))
    move = make_move(scene, prior, t)
    e_step = Posterior("squared", gluing=gluing, scale=0.01)
    found = e_step(move, prior, Blur(7))
    zeta = 1 + 9 * max(t - 600, 0) / 400
    for i in range(2):  # each sample alone, the loss written as in the paper
        z_t = move.z_t[i : i + 1].detach().requires_grad_()
        z0 = (z_t - (1 - ABAR) ** 0.5 * 0.7 * z_t) / ABAR**0.5
        x0, y, kernel = prior.decode(z0, 32, 32), move.y[i : i + 1], move.parameters[i : i + 1]
        loss = (y - ext.blur(x0, kernel)).square().sum() / (2 * zeta * move.variance[i])
        target = ext.blur_adjoint(y, kernel) + x0 - ext.blur_adjoint(ext.blur(x0, kernel), kernel)
        loss = loss + gluing * (z0 - prior.encode(target)).square().sum()
        (gradient,) = torch.autograd.grad(loss, z_t)
        torch.testing.assert_close(
            found[i : i + 1], plain(move)[i : i + 1] - 0.01 * gradient, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("t", "weight"), [(1000, 0.1), (600, 0.8), (200, 0.8), (800, 0.1 * 8**0.5)])
def test_posterior_norm_is_the_literal_gradient(scene: Scene, oracle: Oracle, t: int, weight: float) -> None:
    prior = oracle(torch.zeros(1, 3, 32, 32))
    move = make_move(scene, prior, t)
    found = Posterior("norm", gluing=0.0)(move, prior, Blur(7))
    z_t = move.z_t.detach().requires_grad_()
    x0 = prior.decode((z_t - (1 - ABAR) ** 0.5 * 0.7 * z_t) / ABAR**0.5, 32, 32)
    loss = sum((move.y[i] - ext.blur(x0, move.parameters)[i]).norm() for i in range(2))
    (gradient,) = torch.autograd.grad(loss, z_t)
    torch.testing.assert_close(found, plain(move) - weight * gradient, rtol=1e-4, atol=1e-4)


def test_posterior_without_annealing_keeps_the_last_weight(scene: Scene, oracle: Oracle) -> None:
    prior = oracle(torch.zeros(1, 3, 32, 32))
    early, late = (Posterior(annealing=None)(make_move(scene, prior, t), prior, Blur(7)) for t in (1000, 1000))
    assert early.shape == late.shape
    torch.manual_seed(3)
    first = Posterior(annealing=None)(make_move(scene, prior, 1000), prior, Blur(7))
    torch.manual_seed(3)
    assert torch.equal(first, Posterior()(make_move(scene, prior, 100), prior, Blur(7)))


def test_proximal_is_its_formula(scene: Scene, oracle: Oracle) -> None:
    prior = oracle(torch.zeros(1, 3, 32, 32))
    move = make_move(scene, prior)
    with torch.no_grad():
        found = Proximal(Annealed(), fresh=0.3)(move, prior, Blur(7))
        r2 = (1 - ABAR) / ABAR
        rho = (1 + 9 * 100 / 400) * move.variance / r2
        x = ext.blur_proximal(move.x0, move.parameters, move.y, rho).clamp(-1, 1)
        clean = prior.encode(x)
        direction = (move.z_t - ABAR**0.5 * clean) / (1 - ABAR) ** 0.5
        noise = 0.7**0.5 * direction + 0.3**0.5 * move.noise
        expected = ABAR_NEXT**0.5 * clean + (1 - ABAR_NEXT) ** 0.5 * noise
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
