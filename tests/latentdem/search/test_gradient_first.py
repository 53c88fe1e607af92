"""The default search: kernels from gradients, tried with a prior, and the blind search where they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from skimage import data
from torch import Tensor

import latentdem_ext as ext
from latentdem import HQS, BlindSearch, Pass, SearchConfig, Start
from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.priors.kernel_refiner import load_kernel_refiner
from latentdem.restoration.kernel_search import KernelSearch
from latentdem.search import gradient_first
from latentdem.search.config import Round
from latentdem.search.gradient_first import GradientFirst, GradientFirstSearch
from latentdem.search.gradient_start import Starts, starts_for
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Candidates, Hooks, WorkCounter
from latentdem.solver.state import TraceStep

K = 9
SIZE = 96
QUICK = SearchConfig(
    starts=(Start(0.3), Start(0.2)), coarse=(Round((Pass(2),), HQS(1, 1e6)),), largest_kernel=10
)

QUICK_EM = SearchConfig(starts=(Start(0.3),), coarse=(Round((Pass(2),), HQS(1, 1e6)),), fine=())


def corrected(kernel: Tensor, measurement: Measurement) -> Tensor:
    """What the search gives where it finds this kernel and the model explains the measurement."""
    return load_kernel_refiner().refined(kernel, measurement.sigma)


class CountedSearch(BlindSearch):
    """The blind search with a random denoiser; remembers the noise it was given at each call."""

    def __init__(self, prior: Any) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(prior, KernelDenoiser().requires_grad_(False), QUICK)
        self.sigmas: list[Tensor] = []

    def __call__(self, measurement: Measurement, *arguments: Any, **options: Any) -> Candidates:
        self.sigmas.append(measurement.sigma)
        return super().__call__(measurement, *arguments, **options)


@pytest.fixture(scope="module")
def kernel() -> Tensor:
    """A hook (1, 1, K, K), centred, that differs much from its own turned copy."""
    kernel = torch.zeros(1, 1, K, K)
    kernel[..., 2, 2:6] = torch.tensor([0.5, 0.7, 0.9, 1.0])
    kernel[..., 3:7, 5] = torch.tensor([0.9, 0.7, 0.5, 0.3])
    return kernel / kernel.sum()


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """(2, 3, SIZE, SIZE) parts of a photograph in [-1, 1]."""
    camera = torch.from_numpy(data.camera()).float() / 127.5 - 1
    parts = [camera[top : top + 2 * SIZE : 2, 180 : 180 + 2 * SIZE : 2] for top in (60, 90)]
    return torch.stack(parts)[:, None].repeat(1, 3, 1, 1)


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start at one size."""

    def quick(measurement: Measurement, size: int, *_: Any) -> Starts:
        return starts_for(measurement, size, (size,))

    monkeypatch.setattr(gradient_first, "starts_for", quick)


TWO = GradientFirst(tried=2, moved=(QUICK_EM,))  # the constants that belong to it


FRAME = 6  # pixels on each side of a photograph whose padded grid has SIZE


def measured(x: Tensor, kernel: Tensor, sigma: float = 0.004, framed: bool = False) -> Measurement:
    noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
    y = ext.blur(x, kernel.expand(len(x), -1, -1, -1).contiguous()) + sigma * noise
    y = y[..., FRAME:-FRAME, FRAME:-FRAME] if framed else y
    return Measurement(y, torch.full((len(x),), sigma), circular=not framed)


def run(search: GradientFirstSearch, photographs: Measurement, hooks: Hooks | None = None) -> Candidates:
    """What is found, the blind search included, with the image without its padded grid."""
    found = KernelSearch(search.search, search)(photographs, K, 0, hooks or Hooks())
    return replace(found.candidates, image=found.frame.crop(found.candidates.image))


@pytest.mark.parametrize("framed", [False, True])
def test_a_kernel_that_explains_the_photograph_needs_no_search(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor, framed: bool
) -> None:
    x = photographs[:1]
    blind = CountedSearch(oracle(x))
    result = run(GradientFirstSearch(blind), measured(x, kernel, framed=framed))
    assert blind.sigmas == []
    assert kernel_metrics(result.parameters[0], kernel[0]).mnc > (0.93 if framed else 0.97)
    assert result.residual < 1.2 * 0.004
    assert result.parameters.shape == (1, 1, K, K)
    assert result.image.shape == measured(x, kernel, framed=framed).y.shape


@pytest.mark.usefixtures("quick_start")
def test_em_moves_the_kernel_of_a_noisy_photograph(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor
) -> None:
    x = photographs[:1]
    moved = GradientFirst(tried=2, moved=(QUICK_EM,), moved_loss=10.0)
    noisy, clear = measured(x, kernel, sigma=0.02), measured(x, kernel, sigma=0.004)
    results = [run(GradientFirstSearch(CountedSearch(oracle(x)), moved), one) for one in (noisy, clear)]
    stages = [len(result.trace) for result in results]
    assert stages[0] > stages[1]
    assert all(torch.isfinite(result.parameters).all() for result in results)


@pytest.mark.usefixtures("quick_start")
def test_em_gives_the_mean_of_its_last_kernels_that_agree(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor
) -> None:
    search = GradientFirstSearch(CountedSearch(oracle(photographs)), TWO)
    found = search(measured(photographs, kernel, sigma=0.02), K, 0)
    other = kernel.clone()
    other[..., 2, 2] = 0.12
    kernels = [kernel.flip(-2, -1), kernel, kernel, other / other.sum()]
    steps = [TraceStep("", 0, torch.ones(2), one.expand(2, -1, -1, -1)) for one in kernels]
    moved = search.settled(replace(found.candidates, parameters=steps[-1].parameters, trace=steps))
    expected = (2 * kernel + kernels[-1]) / 3  # not the turned one
    torch.testing.assert_close(moved.parameters, expected.expand(2, -1, -1, -1))


@pytest.mark.usefixtures("quick_start")
def test_a_kernel_that_em_ruins_is_not_taken(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor
) -> None:
    x = photographs[:1]
    measurement = measured(x, kernel, sigma=0.02)
    search = GradientFirstSearch(CountedSearch(oracle(x)), replace(TWO, moved=(QUICK_EM,)))
    found = search(measurement, K, 0)
    ruined = replace(found.candidates, parameters=gaussian_kernel(K, 3.0))
    better = search.better(measurement, found, ruined, torch.tensor([True]), 0, loss=0.02)
    torch.testing.assert_close(better.candidates.parameters, found.candidates.parameters)
    other = search.better(measurement, found, ruined, torch.tensor([True]), 0, loss=100.0)
    torch.testing.assert_close(other.candidates.parameters, ruined.parameters)


@pytest.mark.usefixtures("quick_start")
def test_a_photograph_that_needs_no_search_keeps_its_kernel_beside_one_that_does(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor
) -> None:
    measurement = measured(photographs, kernel)
    noise = torch.randn(measurement.y.shape[1:], generator=torch.Generator().manual_seed(1))
    measurement.y[1] += 0.04 * noise  # more than it is said to have
    blind = CountedSearch(oracle(photographs))
    both = run(GradientFirstSearch(blind, TWO), measurement)
    assert len(blind.sigmas) == 1
    alone = run(GradientFirstSearch(CountedSearch(oracle(photographs[:1])), TWO), measurement.rows(slice(0, 1)))
    torch.testing.assert_close(both.parameters[:1], alone.parameters, atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("quick_start")
def test_the_search_follows_a_large_residual_and_assumes_its_least_noise(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor
) -> None:
    """The photograph has ten times the noise that it is said to have; no image explains it."""
    x = photographs[:1]
    blind = CountedSearch(oracle(x))
    measurement = measured(x, kernel, sigma=0.04)
    measurement.sigma.fill_(0.004)
    config = GradientFirst(tried=2, least_sigma=0.008)
    run(GradientFirstSearch(blind, config), measurement)
    assert [sigma.tolist() for sigma in blind.sigmas] == [[pytest.approx(0.008)]]


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("searched", [False, True])
def test_batch_gives_what_single_runs_give(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor, searched: bool
) -> None:
    measurement = measured(photographs, kernel, 0.02 if searched else 0.004, framed=True)
    blind = CountedSearch(oracle(photographs))
    both = run(GradientFirstSearch(blind, TWO), measurement)
    assert len(blind.sigmas) == searched
    for n in (0, 1):
        rows = slice(n, n + 1)
        search = GradientFirstSearch(CountedSearch(oracle(photographs[rows])), TWO)
        one = run(search, measurement.rows(rows))
        torch.testing.assert_close(both.parameters[rows], one.parameters, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(both.image[rows], one.image, atol=5e-3, rtol=0)
        torch.testing.assert_close(both.residual[rows], one.residual, atol=1e-4, rtol=1e-2)
        assert [step.stage for step in both.trace] == [step.stage for step in one.trace]


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(
    ("sigma", "tried"),
    [(0.004, 2), (0.02, 2), (0.004, 5)],
    ids=["gradients alone", "with the search", "fewer kernels than are tried"],
)
def test_work_is_what_is_done(
    oracle: Callable[[Tensor], Any], photographs: Tensor, kernel: Tensor, sigma: float, tried: int
) -> None:
    """What is not needed is counted at once, so that the progress ends at its total."""
    config = GradientFirst(tried=tried)
    search, seen = GradientFirstSearch(CountedSearch(oracle(photographs)), config), []
    expected = len(photographs) * search.work(SIZE, SIZE, SIZE * SIZE)
    counter = WorkCounter(expected, lambda _, done, total: seen.append((done, total)))
    run(search, measured(photographs, kernel, sigma), hooks=Hooks(counter, counter.extend))
    assert len(search.search.sigmas) == (len(config.moved) if sigma > 0.01 else 0)
    done, totals = zip(*seen, strict=True)
    assert done[-1] == totals[-1]
    assert totals[0] == expected
    assert (totals[-1] > expected) == (sigma > 0.01)
    assert list(done) == sorted(set(done))


def test_the_turned_kernel_loses(
    oracle: Callable[[Tensor], Any],
    photographs: Tensor,
    kernel: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start has the kernel the wrong way round; its turned copy is tried beside it and wins."""
    x, turned = photographs[:1], kernel.flip(-2, -1)
    start = torch.stack([turned, gaussian_kernel(K, 2.0)], 1)
    monkeypatch.setattr(
        gradient_first, "starts_for", lambda *_: Starts(start, torch.zeros(1, 2), torch.ones(1, 2))
    )
    search = GradientFirstSearch(CountedSearch(oracle(x)), GradientFirst(tried=2, rounds=0))
    measurement = measured(x, kernel)
    result = run(search, measurement)
    torch.testing.assert_close(result.parameters, corrected(kernel, measurement))
    assert search.search.sigmas == []


def test_a_kernel_that_the_blind_search_finds_wins_over_a_wrong_start(
    oracle: Callable[[Tensor], Any],
    photographs: Tensor,
    kernel: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = photographs[:1]
    wrong = torch.stack([gaussian_kernel(K, 3.0), gaussian_kernel(K, 2.5)], 1)
    monkeypatch.setattr(
        gradient_first, "starts_for", lambda *_: Starts(wrong, torch.zeros(1, 2), torch.ones(1, 2))
    )
    blind = CountedSearch(oracle(x))
    blind._first_kernels = lambda _: torch.cat([kernel, gaussian_kernel(K, 2.0)])  # type: ignore[method-assign]
    blind.config = SearchConfig(
        starts=(Start(0.3, m_step_from=-1), Start(0.2, m_step_from=-1)), coarse=QUICK.coarse, largest_kernel=10
    )
    measurement = measured(x, kernel)
    result = run(GradientFirstSearch(blind, GradientFirst(tried=2, rounds=0)), measurement)
    assert len(blind.sigmas) == 1
    torch.testing.assert_close(result.parameters, corrected(kernel, measurement), atol=1e-5, rtol=1e-4)
