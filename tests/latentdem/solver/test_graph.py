"""Steps that are captured and replayed, by a stand-in for CUDA graphs where there is no GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem import HQS, Annealed, Blur, LatentDEM, Posterior, Proximal, Skip
from latentdem.operators.kernels import gaussian_kernel
from latentdem.operators.pixelwise import Denoising
from latentdem.priors import EmbeddedPrior
from latentdem.solver import graph
from latentdem.solver.data_weight import MostCautious
from latentdem.solver.graph import cuda_graphs
from latentdem.solver.schedules import Annealing
from latentdem.solver.state import State

from ...stand_in import Recorder

SIZE = 9
Scene = Callable[..., Tensor]
E_STEPS = [
    Proximal(),
    Proximal(Annealed()),
    Proximal(MostCautious()),
    Posterior(),
    Posterior("squared", gluing=0.0, scale=1e-4, eta=0.5),
]
NAMES = ["modelling error", "annealed", "cautious", "posterior", "squared"]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """Runs on the CPU use the stand-in; counts what it has replayed."""
    monkeypatch.setattr(graph, "CudaRecorder", lambda _: Recorder())
    monkeypatch.setattr(graph, "_obstacle", lambda *_: "")
    monkeypatch.setattr(Recorder, "replayed", 0)
    return Recorder


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.DEBUG, "latentdem.solver.graph"):
        yield lambda: [record.getMessage() for record in caplog.records]


def run(prior: EmbeddedPrior, y: Tensor, e_step: Any, mask: Tensor | None = None) -> list[Tensor]:
    """Everything that a run gives, and that its steps showed."""
    operator = Blur(SIZE, hqs=HQS(2, delta=1e3, centre=True, noise_level=0.05), mask=mask)
    skip, m_step_from = Skip(700, 250), (950, 600)
    solver = LatentDEM(prior, operator, e_step, num_samples=2, skip=skip, m_step_from=m_step_from)
    states: list[State] = []
    kernel = gaussian_kernel(SIZE, 2).repeat(2, 1, 1, 1).to(y)
    generator = torch.Generator(y.device).manual_seed(0)
    results = [*solver(y, kernel, 0.02, generator=generator, steps=12, on_step=states.append)]
    for state in states:
        results += (state.latents, state.parameters, state.clean, state.step.residual, state.step.parameters)
    return results


def test_annealing_of_a_timestep_on_the_device() -> None:
    for annealing in (Annealing(), Annealing(4.0, 2.0, 300)):
        for t in (0, 300, 450, 600, 601, 777, 999):
            found, variance = annealing(torch.tensor(t)), torch.rand(3)
            assert torch.equal(found * variance, annealing(t) * variance)


@pytest.mark.parametrize("framed", [False, True], ids=["circular", "frame"])
@pytest.mark.parametrize("e_step", E_STEPS, ids=NAMES)
def test_replayed_steps_give_the_same_bits(
    scene: Scene, tiny_prior: EmbeddedPrior, replays: type[Recorder], e_step: Any, framed: bool
) -> None:
    y, mask = torch.cat([scene(32, 32, seed=seed) for seed in (1, 2)]), None
    if framed:
        mask = torch.zeros(1, 1, 32, 32)
        mask[..., 5:-5, 5:-5] = 1
    found = run(tiny_prior, y, e_step, mask)
    assert replays.replayed >= 4  # of 12 steps of several kinds, the first of which are computed as usual
    with cuda_graphs(False):
        expected = run(tiny_prior, y, e_step, mask)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_steps_that_cannot_be_captured_are_computed_as_usual(
    scene: Scene,
    tiny_prior: EmbeddedPrior,
    replays: type[Recorder],
    said: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")

    y = torch.cat([scene(32, 32, seed=seed) for seed in (1, 2)])
    monkeypatch.setattr(Recorder, "record", refuse)
    found = run(tiny_prior, y, Proximal())
    reason = "CUDA error: operation not permitted when stream is capturing"
    assert said()[0] == f"Steps are not captured as a CUDA graph: {reason}"
    assert 1 <= len(said()) <= 4  # one line for a kind of steps
    with cuda_graphs(False):
        expected = run(tiny_prior, y, Proximal())
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_state_that_the_caller_changes_is_taken(
    scene: Scene, tiny_prior: EmbeddedPrior, replays: type[Recorder]
) -> None:
    def shift(state: State) -> None:
        state.latents, state.parameters = state.latents + 0.01, gaussian_kernel(5, 1).repeat(2, 1, 1, 1)

    y = torch.cat([scene(32, 32, seed=seed) for seed in (1, 2)])
    results = []
    for wanted in (True, False):
        solver = LatentDEM(tiny_prior, Blur(5, fixed=True), Proximal())
        generator, kernel = torch.Generator().manual_seed(0), gaussian_kernel(5, 2).repeat(2, 1, 1, 1)
        with cuda_graphs(wanted):
            results.append(solver(y, kernel, 0.02, generator=generator, steps=6, on_step=shift))
    assert replays.replayed > 0
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_it_is_said_why_steps_are_not_captured(
    scene: Scene, oracle: Callable[..., Any], tiny_prior: EmbeddedPrior, said: Callable[[], list[str]]
) -> None:
    run(tiny_prior, scene(32, 32).repeat(2, 1, 1, 1), Proximal())
    with cuda_graphs(False):
        run(tiny_prior, scene(32, 32).repeat(2, 1, 1, 1), Proximal())
    begin = "Steps are not captured as CUDA graphs: "
    assert said() == [begin + "the device is cpu.", begin + "they are switched off."]


def test_parts_that_may_ask_for_values_are_named(
    scene: Scene, oracle: Callable[..., Any], tiny_prior: EmbeddedPrior
) -> None:
    device, y = torch.device("cuda"), scene(32, 32)
    holes = (torch.rand(1, 1, 32, 32) > 0.1).float()

    def named(prior: Any = tiny_prior, operator: Any = None, e_step: Any = None) -> str:
        parts = prior, operator or Blur(SIZE), e_step or Proximal()
        step = graph.Step(*parts, y, torch.ones(1), 1, (32, 32))
        return graph._obstacle(step, device)

    assert named() == ""
    assert named(oracle(y)) == "a OraclePrior may ask the device for values"
    assert named(operator=Denoising()) == "a Denoising may ask the device for values"
    assert named(operator=Blur(SIZE, mask=holes)) == "a Blur may ask the device for values"


@pytest.mark.gpu
@pytest.mark.parametrize("framed", [False, True], ids=["circular", "frame"])
@pytest.mark.parametrize("e_step", [Proximal(), Posterior()], ids=["proximal", "posterior"])
def test_cuda_graphs_give_what_single_kernels_give(
    scene: Scene, framed: bool, e_step: Any, said: Callable[[], list[str]]
) -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    prior = EmbeddedPrior.from_pretrained(device=device, precision=torch.float32)
    y, mask = torch.cat([scene(64, 64, seed=seed) for seed in (1, 2)]).to(device), None
    if framed:
        mask = torch.zeros(1, 1, 64, 64, device=device)
        mask[..., 5:-5, 5:-5] = 1
    found = run(prior, y, e_step, mask)
    assert not said()
    with cuda_graphs(False):
        expected = run(prior, y, e_step, mask)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("framed", [False, True], ids=["circular", "frame"])
def test_no_step_waits_on_a_gpu(scene: Scene, framed: bool) -> None:
    """As PyTorch sees it, also what the stand-in of `test_waits` cannot know, such as what a library does."""
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    prior = EmbeddedPrior.from_pretrained(device=device, precision=torch.float32)
    y, mask = scene(64, 64).to(device), None
    if framed:
        mask = torch.zeros(1, 1, 64, 64, device=device)
        mask[..., 5:-5, 5:-5] = 1
    operator = Blur(SIZE, hqs=HQS(2, delta=1e3, centre=True, noise_level=0.05), mask=mask)
    generator, kernel = torch.Generator(device).manual_seed(0), gaussian_kernel(SIZE, 2).to(device)
    done: list[State] = []

    def watch(state: State) -> None:
        done.append(state)
        # The first steps fill the caches; after the last one, the host may wait.
        torch.cuda.set_sync_debug_mode("error" if 3 <= len(done) < 9 else "default")

    try:
        with cuda_graphs(False):
            LatentDEM(prior, operator, Proximal())(y, kernel, 0.02, generator=generator, steps=9, on_step=watch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(done) == 9
