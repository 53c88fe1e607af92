from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import HQS, Blur, LatentDEM, ModellingError, Posterior, Proximal, Skip, UserError
from latentdem.operators.kernels import delta_kernel, gaussian_kernel, motion_kernels
from latentdem.priors import EmbeddedPrior
from latentdem.solver.state import State

Scene = Callable[..., Tensor]
E_STEPS = [Proximal(), Posterior()]


def run(solver: LatentDEM, y: Tensor, kernel: Tensor, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.full((len(y),), 0.02)
    return solver(y, kernel, sigma, generator=generator, **{"steps": 10, **options})


def start(batch: int, size: int = 9) -> Tensor:
    return gaussian_kernel(size, 2).repeat(batch, 1, 1, 1)


@pytest.mark.parametrize("e_step", E_STEPS, ids=["proximal", "posterior"])
def test_a_perfect_prior_gives_image_and_kernel(scene: Scene, oracle: Callable[..., Any], e_step: Any) -> None:
    x = torch.cat([scene(48, 64, seed=1), scene(48, 64, seed=2)])
    kernel = motion_kernels(2, 9, 0.5, 1)
    y = ext.blur(x, kernel)
    solver = LatentDEM(oracle(x), Blur(9, hqs=HQS(20, delta=10.0)), e_step)
    image, found = run(solver, y, start(2))
    torch.testing.assert_close(image, x, atol=0.05, rtol=0)
    for k, truth in zip(found, kernel, strict=True):
        assert float((k * truth).sum() / (k.norm() * truth.norm())) > 0.99


@pytest.mark.parametrize("e_step", E_STEPS, ids=["proximal", "posterior"])
def test_batch_gives_what_single_runs_give(scene: Scene, tiny_prior: EmbeddedPrior, e_step: Any) -> None:
    y = torch.cat([scene(40, 48, seed=s) for s in range(3)])
    solver = LatentDEM(tiny_prior, Blur(9), e_step, num_samples=2)
    image, kernel = run(solver, y, start(3), steps=5)
    for i in range(3):
        single, single_kernel = run(solver, y[i : i + 1], start(1), steps=5)
        torch.testing.assert_close(image[i : i + 1], single, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(kernel[i : i + 1], single_kernel, atol=1e-5, rtol=1e-3)


def test_seed_decides(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    solver, y = LatentDEM(tiny_prior, Blur(9)), scene(40, 48)
    torch.manual_seed(1)
    first = run(solver, y, start(1))
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, run(solver, y, start(1)), strict=True))
    assert not torch.equal(first[0], run(solver, y, start(1), seed=1)[0])


def test_one_number_is_the_noise_of_every_image(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    solver, y = LatentDEM(tiny_prior, Blur(9)), torch.cat([scene(24, 32), scene(24, 32, seed=1)])
    expected, _ = run(solver, y, start(2), steps=2)
    image, _ = solver(y, start(2), 0.02, generator=torch.Generator().manual_seed(0), steps=2)
    assert torch.equal(image, expected)


def test_hypotheses_of_an_image_have_noise_of_their_own(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y = scene(40, 48).repeat(2, 1, 1, 1)
    image, _ = run(LatentDEM(tiny_prior, Blur(9), hypotheses=2), y, start(2))
    assert not torch.allclose(image[0], image[1], atol=1e-5)


def test_samples_are_averaged(scene: Scene, oracle: Callable[..., Any]) -> None:
    x = scene(32, 32)
    image, kernel = run(LatentDEM(oracle(x), Blur(9), num_samples=3), x, start(1))
    assert image.shape == x.shape
    assert kernel.shape == (1, 1, 9, 9)


def test_skipped_steps_do_not_decode(scene: Scene, oracle: Callable[..., Any]) -> None:
    prior, decoded = oracle(scene(32, 32)), []
    decode = prior.decode
    prior.decode = lambda z, h, w: decoded.append(1) or decode(z, h, w)
    seen: list[State] = []
    solver = LatentDEM(prior, Blur(9), skip=Skip(500, 100), m_step_from=900)
    run(solver, scene(32, 32), start(1), steps=50, on_step=seen.append)
    expected = [t for t in range(999, -1, -20) if t <= 500 or (t + 20) // 100 > t // 100 or t % 100 == 0]
    assert len(seen) == len(decoded) - 1  # and once for the result
    assert {s.step.t for s in seen if s.step.t > 500} <= set(expected)
    assert 5 <= sum(s.step.t > 500 for s in seen) <= 6
    assert all(torch.equal(s.step.parameters, start(1)) for s in seen if s.step.t > 900)


@pytest.mark.parametrize("e_step", E_STEPS, ids=["proximal", "posterior"])
def test_goes_on_from_any_state(scene: Scene, tiny_prior: EmbeddedPrior, e_step: Any) -> None:
    y, generator = scene(24, 24), torch.Generator().manual_seed(0)
    states: list[tuple[State, Tensor]] = []
    solver = LatentDEM(tiny_prior, Blur(9), e_step, skip=Skip(400, 300))
    sigma, options = torch.tensor([0.02]), {"generator": generator, "steps": 12}
    whole = solver(
        y, start(1), sigma, on_step=lambda s: states.append((replace(s), generator.get_state())), **options
    )
    assert len(states) < 12  # some steps were skipped
    for state, random in states[::2]:
        generator.set_state(random)
        resumed = solver(y, start(1), sigma, resume=state, **options)
        assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_every_entry_has_its_own_first_m_step(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    seen: list[State] = []
    y = scene(24, 24).repeat(2, 1, 1, 1)
    run(LatentDEM(tiny_prior, Blur(9), m_step_from=(-1, 600)), y, start(2), steps=5, on_step=seen.append)
    for state in seen:
        first, second = (torch.equal(kernel, start(1)[0]) for kernel in state.parameters)
        assert first
        assert second == (state.step.t > 600)
    with pytest.raises(UserError, match="There are 3 numbers `m_step_from` for 2 entries"):
        run(LatentDEM(tiny_prior, Blur(9), m_step_from=(1, 2, 3)), y, start(2))


def test_later_start_keeps_the_image(scene: Scene, oracle: Callable[..., Any]) -> None:
    x = scene(32, 32)
    seen: list[State] = []
    solver = LatentDEM(oracle(x), Blur(9, fixed=True))
    image, _ = run(solver, x, delta_kernel(9), start=100, steps=100, image=x, on_step=seen.append)
    assert seen[0].step.t == 100
    torch.testing.assert_close(image, x, atol=0.01, rtol=0)


def test_known_kernel_restores_better_than_the_input(scene: Scene, oracle: Callable[..., Any]) -> None:
    """The prior knows a smoothed image only; the measurement gives the rest."""
    x = scene(48, 48)
    smooth = ext.blur(x, gaussian_kernel(9, 2))
    kernel = gaussian_kernel(9, 0.8)
    y = ext.blur(x, kernel)
    e_step = Proximal(ModellingError(0.0), fresh=0.0)
    solver = LatentDEM(oracle(smooth), Blur(9, fixed=True), e_step)
    trace: list[State] = []
    run(solver, y, kernel, on_step=trace.append)
    operator = Blur(9)
    rho = torch.tensor([0.01])
    error = (operator.proximal(smooth, kernel, y, rho) - x).square().mean()
    assert error < 0.2 * (smooth - x).square().mean()
    assert len(trace) == 10
