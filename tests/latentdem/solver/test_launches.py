"""How many programs a step starts on a GPU, counted on a stand-in for one; see `tests/stand_in.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import latentdem_ext as ext
from latentdem import HQS, Blur, LatentDEM, Proximal
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import Condition, DiffusersPrior
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.solver.graph import cuda_graphs

from ...launches import Launches, launches_of_operations
from ...stand_in import Recorder, put, stand_in_device

ROOT = Path(__file__).resolve().parents[3]
ITERATIONS = 5  # of the M-step, as in a run of `latentdem`
OF_A_STEP = {
    "group_norm_silu": 50,
    "upsample_conv": 3,
    "blur": 2,
    "blur_proximal": 1,
    "hqs_prepare": 1,
    "hqs_kernel_update": ITERATIONS,
    "project_kernel": ITERATIONS + 1,
    "renoise": 1,
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Counter[str]]:
    """Launches of a step with networks that have all layers of Stable Diffusion 1.5, few channels and pixels.

    With CUDA graphs or without: a replayed graph is one launch. Two runs of different lengths differ by a step.
    """
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.whole_run import networks

    torch.manual_seed(0)
    vae, unet, schedule = networks(32)
    denoiser = load_kernel_denoiser()
    text = torch.randn(1, 77, unet.config["cross_attention_dim"])
    y = torch.rand(1, 3, 64, 64) * 2 - 1
    record = Recorder.record

    def run(steps: int, graph: bool) -> Counter[str]:
        operator = Blur(9, denoiser.denoise, HQS(ITERATIONS, 1e6, centre=True))
        given = put((y, gaussian_kernel(9, 3.0), torch.full((1,), 0.02)))
        generator = torch.Generator().manual_seed(0)
        with cuda_graphs(graph), launches_of_operations(monkeypatch) as launches:
            monkeypatch.setattr(Recorder, "record", one_launch(record, launches))
            LatentDEM(prior, operator, Proximal())(*given, generator=generator, steps=steps)
        return Counter(launches.names)

    def of_a_step(graph: bool) -> Counter[str]:
        nonlocal prior
        with stand_in_device(monkeypatch):
            for network in (vae, unet, denoiser):
                put(network)
            prior = DiffusersPrior(vae, unet, schedule, Condition(put(text)))
            prior.latents.accelerate()
            few, more = run(3, graph), run(4, graph)
        more.subtract(few)
        return Counter({name: count for name, count in more.items() if count})

    prior: Any = None
    return of_a_step


@pytest.mark.parametrize(("iterations", "separate"), [(5, 128), (20, 503)])
def test_programs_of_an_m_step(monkeypatch: pytest.MonkeyPatch, iterations: int, separate: int) -> None:
    """As single operations, and where the iterations are one of them; docs/reference/cost.md has the counts."""
    counts = []
    for one_launch in (False, True):
        monkeypatch.setattr(ext, "hqs_m_step_is_one_launch", lambda *_, result=one_launch: result)
        with stand_in_device(monkeypatch):
            operator = Blur(9, put(load_kernel_denoiser()), HQS(iterations, 1e6))
            x = torch.rand(1, 1, 3, 32, 32) * 2 - 1
            given = put((x, x[0], gaussian_kernel(9, 3.0), torch.full((1,), 1e-3)))
            with torch.no_grad(), launches_of_operations(monkeypatch) as launches:
                operator.m_step(*given)
        counts.append(Counter(launches.names))
    assert counts[0].total() == separate
    own, rest = ("hqs_prepare", "hqs_m_step"), ("clamp", "mul", "new_full")
    assert counts[1] == Counter([*(f"latentdem::{name}" for name in own), *rest])


def one_launch(record: Callable[..., Any], launches: Launches) -> Callable[..., Any]:
    """`Recorder.record` with replays that count as one launch."""

    def noted(self: Recorder, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        replay, kept = record(self, function)

        def replay_once() -> None:
            launches.names.append("graph")
            launches.within = True
            try:
                replay()
            finally:
                launches.within = False

        return replay_once, kept

    return noted


def test_programs_of_a_step(counted: Callable[[bool], Counter[str]]) -> None:
    names = counted(False)
    own = {name.removeprefix("latentdem::"): n for name, n in names.items() if name.startswith("latentdem::")}
    assert own == OF_A_STEP
    assert 1080 < names.total() <= 1100  # docs/reference/cost.md; the U-Net is that of diffusers


def test_a_graph_is_one_program_beside_what_goes_in_and_out(counted: Callable[[bool], Counter[str]]) -> None:
    noise, inputs, results = Counter(randn=1, repeat=1), Counter(copy_=5, fill_=1), Counter(clone=4)
    assert counted(True) == noise + inputs + results + Counter(graph=1)
