from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from latentdem import HQS, Blur, Pass, Posterior, SearchConfig, Skip
from latentdem.evaluation import EvaluationSettings, Task, methods
from latentdem.evaluation.accuracy import accuracy
from latentdem.evaluation.methods import ConfiguredLatentDEM, OtherKernelPrior, VanillaEM, in_fewer_steps
from latentdem.metrics import kernel_metrics
from latentdem.operators.blur import Denoiser
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.output.result import Result
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.priors.kernel_diffusion import KernelDiffusion
from latentdem.restoration.config import RestorationConfig, algorithm_1
from latentdem.restoration.image import KnownKernelConfig
from latentdem.solver.schedules import EVERY_STEP
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]
SHORT = RestorationConfig(known=KnownKernelConfig((Pass(2),), num_samples=1))


@pytest.fixture
def task(scene: Scene, oracle: Any, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A blurred picture with a prior that knows it."""
    sharp, kernel = scene(32, 32), motion_kernels(1, 9, 0.5, 0)
    networks = (oracle(sharp), KernelDenoiser(2, 4))
    monkeypatch.setattr(methods, "networks", lambda prior, device: networks)
    settings = EvaluationSettings(kernel_size=9)
    noise = 0.02 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0))
    return Task(Blur(9)(sharp, kernel) + noise, kernel, settings, torch.device("cpu"), lambda *_: None)


def test_true_kernel_and_a_guessed_one(task: Task) -> None:
    known = ConfiguredLatentDEM(SHORT)(replace(task, settings=replace(task.settings, non_blind=True)))
    assert torch.equal(known.kernel, task.kernel)
    guessed = ConfiguredLatentDEM(SHORT, guess=0.15)(task)
    assert torch.allclose(guessed.kernel, gaussian_kernel(9, 0.15 * 9))
    assert float(known.residual) < float(guessed.residual)


def test_vanilla_em_updates_the_kernel_once_per_diffusion(task: Task) -> None:
    short = replace(task, settings=replace(task.settings, steps=2))
    seen: list[tuple[str, int, int]] = []
    once = VanillaEM(1)(replace(short, progress=lambda *args: seen.append(args)))
    twice = VanillaEM(2)(short)
    assert seen == [("EM", 0, 1)]
    first = kernel_metrics(gaussian_kernel(9, 2.7), task.kernel).mnc
    assert kernel_metrics(once.kernel, task.kernel).mnc > first
    assert not torch.equal(once.kernel, twice.kernel)
    assert twice.trace == []


def test_fewer_steps_of_algorithm_1_go_as_far() -> None:
    config = in_fewer_steps(algorithm_1(), 100)
    assert config.e_step == config.known.e_step == Posterior(scale=10.0)
    assert config.skip == config.known.skip == Skip(500, 80)
    assert config.search.coarse[0].passes == config.known.passes == (Pass(100),)
    assert in_fewer_steps(algorithm_1(skip=EVERY_STEP), 100).skip == EVERY_STEP
    ours = in_fewer_steps(RestorationConfig(), 10)
    assert ours.e_step is None
    assert [each.passes[0].steps for each in (*ours.search.coarse, ours.known)] == [10, 10, 10]


def test_channels_alone_and_together_agree_on_a_grey_picture(scene: Scene) -> None:
    x, kernel = scene(32, 32, channels=1), motion_kernels(1, 9, 0.5, 0)
    y, variance = Blur(9)(x, kernel), torch.tensor([4e-4])
    first = gaussian_kernel(9, 2.0)
    joint, alone = (
        Blur(9, None, HQS(3, 1e4, per_channel=per)).m_step(x[:, None], y, first, variance)
        for per in (False, True)
    )
    assert torch.allclose(joint, alone, atol=1e-6)
    grey = [each.expand(-1, 3, -1, -1) for each in (x, y)]
    tripled = Blur(9, None, HQS(3, 1e4, per_channel=True)).m_step(grey[0][:, None], grey[1], first, variance)
    assert torch.allclose(tripled, alone, atol=1e-6)


def test_channels_alone_differ_from_together_on_a_coloured_one(scene: Scene) -> None:
    x, kernel = torch.cat([scene(32, 32), scene(32, 32, seed=1)]), motion_kernels(2, 9, 0.5, 0)
    y, variance = Blur(9)(x, kernel), torch.full((2,), 4e-4)
    first = gaussian_kernel(9, 2.0).repeat(2, 1, 1, 1)
    operator = Blur(9, None, HQS(1, 1e4, per_channel=True))
    alone = operator.m_step(x[:, None], y, first, variance)
    channels = [
        Blur(9, None, HQS(1, 1e4)).m_step(x[:, None, c : c + 1], y[:, c : c + 1], first, variance)
        for c in range(3)
    ]
    assert torch.allclose(alone, torch.stack(channels).mean(0), atol=1e-6)
    joint = Blur(9, None, HQS(1, 1e4)).m_step(x[:, None], y, first, variance)
    assert not torch.allclose(alone, joint, atol=1e-4)


def test_accuracy_of_a_trace_with_a_coarse_part() -> None:
    truth, coarse = gaussian_kernel(17, 3.0), gaussian_kernel(9, 1.5)
    trace = [
        TraceStep("half size", 900, torch.tensor([0.2]), coarse),
        TraceStep("full size", 500, torch.tensor([0.1]), truth),
    ]
    result = Result(torch.zeros(1), truth, torch.zeros(1), torch.zeros(1), torch.zeros(1), trace)
    first, second = accuracy(result, truth)
    assert first.mnc > 0.99
    assert second.mnc == pytest.approx(1)
    assert (first.stage, first.t, first.residual) == ("half size", 900, pytest.approx(0.2))


@pytest.mark.parametrize("name", ["diffusion", "none"])
def test_another_kernel_prior_is_that_of_all_m_steps(
    task: Task, monkeypatch: pytest.MonkeyPatch, name: Literal["diffusion", "none"]
) -> None:
    """The default method comes to the same with the networks of an evaluation exchanged."""
    seen: list[Tensor] = []

    class Watched(KernelDiffusion):
        def denoise(self, kernel: Tensor, noise_level: Tensor | float) -> Tensor:
            seen.append(kernel)
            return super().denoise(kernel, noise_level)

    monkeypatch.setattr(methods, "KernelDiffusion", Watched)
    task = replace(task, settings=replace(task.settings, steps=2))
    result = OtherKernelPrior(name)(task)
    assert bool(seen) == (name == "diffusion")
    usual = ConfiguredLatentDEM()(task)
    prior, _ = methods.networks("embedded", task.device)
    other: Denoiser = KernelDiffusion.from_pretrained() if name == "diffusion" else Unchanged()
    monkeypatch.setattr(methods, "networks", lambda *_: (prior, other))
    expected = ConfiguredLatentDEM()(task)
    # Kernels that are not denoised are divided by their sum once less.
    torch.testing.assert_close(result.kernel, expected.kernel, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(result.tensor, expected.tensor, rtol=1e-3, atol=1e-4)
    assert (result.kernel - usual.kernel).abs().max() > 1e-4


class Unchanged:
    """A denoiser that changes nothing."""

    def denoise(self, kernel: Tensor, noise_level: Tensor) -> Tensor:
        return kernel


def test_a_search_uses_the_configuration(task: Task) -> None:
    recipe = SearchConfig()
    short = replace(recipe, starts=recipe.starts[:1], coarse=(replace(recipe.coarse[0], passes=(Pass(2),)),))
    result = ConfiguredLatentDEM(replace(SHORT, search=short, gradients=None, again=False))(task)
    assert [step.t for step in result.trace] == [999, 499]
