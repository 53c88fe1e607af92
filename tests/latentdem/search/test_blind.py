from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import HQS, PAPER, BlindSearch, Pass, SearchConfig, Start
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.search.blind import shrink_mask
from latentdem.search.config import Round
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Hooks

Scene = Callable[..., Tensor]

SIGMA = torch.tensor([0.02])
HQS_QUICK = HQS(2, 1e6, centre=True)
QUICK = SearchConfig(
    starts=(Start(0.3), Start(0.2, m_step_from=600), Start(0.1, 0.1, modelling_error=5.0)),
    coarse=(Round((Pass(4),), HQS_QUICK, 2), Round((Pass(4, 500),), HQS_QUICK, 2)),
    fine=(Round((Pass(6, 500),), HQS_QUICK),),
    largest_kernel=10,
)


def search(prior: Any, config: SearchConfig = QUICK) -> BlindSearch:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = KernelDenoiser()
    return BlindSearch(prior, denoiser.requires_grad_(False), config)


def test_shrunk_mask_counts_whole_pixels_only() -> None:
    mask = torch.zeros(1, 1, 4, 8)
    mask[..., :3] = 1
    assert shrink_mask(mask, 2)[0, 0].tolist() == [[1, 0, 0, 0]] * 2
    assert shrink_mask(None, 2) is None


@pytest.mark.parametrize("size", [9, 15])
def test_batch_gives_what_single_runs_give(scene: Scene, tiny_prior: EmbeddedPrior, size: int) -> None:
    y = torch.cat([scene(32, 32, seed=s) for s in range(2)])
    find = search(tiny_prior)
    both = find(Measurement(y, torch.full((2,), 0.02)), size, torch.Generator().manual_seed(0))
    assert both.parameters.shape == (2, 1, size, size)
    torch.testing.assert_close(both.parameters.sum((1, 2, 3)), torch.ones(2))
    for i in range(2):
        one = find(Measurement(y[i : i + 1], SIGMA), size, torch.Generator().manual_seed(0))
        torch.testing.assert_close(both.image[i : i + 1], one.image, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(both.parameters[i : i + 1], one.parameters, atol=1e-4, rtol=1e-3)
        assert [s.stage for s in both.trace] == [s.stage for s in one.trace]


@pytest.mark.parametrize("size", [9, 15])
def test_work_is_what_is_done(scene: Scene, tiny_prior: EmbeddedPrior, size: int) -> None:
    find, done = search(tiny_prior), []
    find(Measurement(scene(64, 64), SIGMA), size, torch.Generator(), hooks=Hooks(lambda _, n: done.append(n)))
    assert sum(done) == find.work(64, 64, size)


def test_trace_names_the_stages_in_order(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    result = search(tiny_prior)(Measurement(scene(64, 64), SIGMA), 15, torch.Generator())
    stages = list(dict.fromkeys(step.stage for step in result.trace))
    coarse = "kernel search at 1/2 size"
    assert stages == [coarse, "kernel search"]
    assert all(step.parameters.shape[0] == 1 for step in result.trace)
    assert result.trace[0].parameters.shape[-1] == 8
    assert result.trace[-1].parameters.shape[-1] == 15


def test_a_perfect_prior_finds_the_kernel_coarse_to_fine(scene: Scene, oracle: Callable[..., Any]) -> None:
    """The oracle has the image at the requested size."""
    x = torch.nn.functional.interpolate(scene(48, 48), scale_factor=2, mode="bicubic").clamp(-1, 1)
    kernel = gaussian_kernel(15, 2.5)
    y = ext.blur(x, kernel)
    prior = oracle(x)
    plain = prior.encode

    def latent_shape(height: int, width: int) -> tuple[int, int, int]:
        prior.target = torch.nn.functional.interpolate(x, (height, width), mode="area")
        return 12, height // 2, width // 2

    prior.latent_shape, prior.encode = latent_shape, plain
    config = SearchConfig(
        starts=(Start(0.3, None),),
        coarse=(Round((Pass(10),), HQS(10, 10.0)),),
        fine=(Round((Pass(10, 500),), HQS(10, 10.0)),),
        largest_kernel=10,
    )
    find = search(prior, config)
    find.denoiser.denoise = lambda kernel, level: kernel
    result = find(Measurement(y, SIGMA), 15, torch.Generator().manual_seed(0))
    assert float((result.parameters * kernel).sum() / (result.parameters.norm() * kernel.norm())) > 0.97


def test_config_of_the_paper_is_one_full_size_run_from_a_delta() -> None:
    find = search(None, PAPER)
    ((factor, (only,)),) = PAPER.scales(256, 129)
    assert factor == 1
    assert only.passes == (Pass(1000),)
    assert only.hqs == HQS(20, 5e6, 512 * 512)
    y = torch.zeros(1, 3, 80, 80)
    first = find._first_kernels(find._scale(Measurement(y, SIGMA), 64, 1))
    assert first.shape == (1, 1, 64, 64)
    assert first[0, 0, 32, 32] == 1


def test_paper_search_runs_from_the_delta(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    paper = replace(PAPER, coarse=(Round((Pass(10),), HQS(2)),))
    result = search(tiny_prior, paper)(Measurement(scene(32, 32), SIGMA), 9, torch.Generator())
    assert result.parameters.shape == (1, 1, 9, 9)
    assert len(result.trace) == 10


def test_what_explains_the_measurement_wins_after_the_rounds(scene: Scene, oracle: Callable[..., Any]) -> None:
    """A prior that knows the image; of two hypotheses that do not move one has the true kernel."""
    x, kernel = scene(48, 48), gaussian_kernel(9, 1.5)
    prior = oracle(x)
    y = ext.blur(x, kernel)
    stuck = SearchConfig(
        starts=(Start(0.5, m_step_from=-1), Start(1.5 / 9, m_step_from=-1), Start(0.1, m_step_from=-1)),
        coarse=(Round((Pass(4),), HQS_QUICK, 3), Round((Pass(4, 500),), HQS_QUICK, 2)),
    )
    result = search(prior, stuck)(Measurement(y, SIGMA), 9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(result.parameters, kernel, atol=1e-5, rtol=1e-4)


def test_a_kernel_result_upside_down_is_turned(scene: Scene, oracle: Callable[..., Any]) -> None:
    """Its power spectrum is the true one's, so that a search may end there; only the image tells."""
    x = scene(48, 48)
    kernel = torch.zeros(1, 1, 9, 9)
    kernel[..., 4, 2:7] = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    find = search(oracle(x), SearchConfig(starts=(Start(0.3, m_step_from=-1),) * 2, coarse=QUICK.coarse[:1]))
    find._first_kernels = lambda _: torch.cat([kernel.flip(-2, -1), gaussian_kernel(9, 2.0)])
    y = ext.blur(x, kernel)
    result = find(Measurement(y, SIGMA), 9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(result.parameters, kernel, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.image, x, atol=0.1, rtol=0.1)
