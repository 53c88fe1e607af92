from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from latentdem import Blur
from latentdem.evaluation import EvaluationSettings, Method, Task
from latentdem.evaluation.baselines import (
    BlindRichardsonLucy,
    BlindTotalVariation,
    KnownRichardsonLucy,
    KnownWiener,
    _correlation,
)
from latentdem.evaluation.self_deblur import ImageNetwork, SelfDeblur, kernel_network
from latentdem.metrics import kernel_metrics, psnr
from latentdem.operators.kernels import gaussian_kernel
from latentdem.operators.simulate import blur_and_add_noise

Scene = Callable[..., Tensor]
SIZE = 9


@pytest.fixture
def reference(scene: Scene) -> Tensor:
    return torch.cat([scene(48, 48, seed=1), scene(48, 48, seed=2)])


@pytest.fixture
def task(reference: Tensor) -> Task:
    """Two pictures blurred by an oblique streak, with little noise."""
    kernel = torch.eye(SIZE)[None, None] / SIZE
    generator = np.random.default_rng(0)
    blurred = torch.cat([blur_and_add_noise(x[None], kernel, 0.01, generator)[0] for x in reference])
    settings = EvaluationSettings(kernel_size=SIZE, noise_sigma=0.01)
    return Task(blurred, kernel.repeat(2, 1, 1, 1), settings, torch.device("cpu"), lambda *_: None)


@pytest.mark.parametrize("method", [KnownRichardsonLucy(), KnownWiener()])
def test_baselines_restore_with_the_true_kernel(method: Method, task: Task, reference: Tensor) -> None:
    result = method(task)
    for i in range(2):
        assert psnr(result.image[i], reference[i]) > psnr(task.blurred[i], reference[i]) + 2
    assert torch.equal(result.kernel, task.kernel)
    assert result.seconds["total"] > 0


@pytest.mark.parametrize(("method", "gain"), [(BlindRichardsonLucy(), 0.02), (BlindTotalVariation(), 0.1)])
def test_blind_baselines_approach_the_true_kernel(method: Method, gain: float, task: Task) -> None:
    cartoon = torch.full((1, 3, 48, 48), -0.8)
    cartoon[..., 8:30, 12:20] = cartoon[..., 20:40, 26:42] = 0.8
    y, _ = blur_and_add_noise(cartoon, task.kernel[:1], 0.01, np.random.default_rng(0))
    result = method(replace(task, blurred=torch.cat([y, y.flip(1)]), kernel=task.kernel))
    first = kernel_metrics(gaussian_kernel(SIZE, 0.15 * SIZE), task.kernel[:1]).mnc
    assert kernel_metrics(result.kernel[:1], task.kernel[:1]).mnc > first + gain
    assert torch.allclose(result.kernel[:1], result.kernel[1:], atol=1e-5)  # channels in another order
    assert torch.allclose(result.kernel.sum((1, 2, 3)), torch.ones(2))
    assert result.kernel.min() >= 0
    assert result.image.abs().max() <= 1
    expected = Blur(SIZE).residual(result.image, result.kernel, result.blurred)
    assert torch.allclose(result.residual, expected)


def test_the_kernel_update_is_the_adjoint_of_the_blur(scene: Scene) -> None:
    u, r = (scene(20, 22, seed=i).double() + 2 for i in (1, 2))
    kernel = torch.rand(1, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    left = (Blur(6)(u, kernel) * r).sum()
    right = (kernel * _correlation(u, r, 6)).sum() * u.sum()
    assert float(left) == pytest.approx(float(right), rel=1e-9)


def test_self_deblur_explains_the_measurement_and_keeps_the_random_state(task: Task) -> None:
    alone = replace(task, blurred=task.blurred[:1], kernel=task.kernel[:1])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    short, long = SelfDeblur(3)(alone), SelfDeblur(60)(alone)
    assert torch.equal(torch.rand(1), expected)
    assert float(long.residual) < 0.7 * float(short.residual)
    assert float(long.kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(SelfDeblur(3)(alone).image, short.image)


def test_self_deblur_restores_a_batch_one_by_one(task: Task) -> None:
    seen: list[tuple[int, int]] = []
    both = SelfDeblur(2)(replace(task, progress=lambda _, done, total: seen.append((done, total))))
    second = SelfDeblur(2)(replace(task, blurred=task.blurred[1:], kernel=task.kernel[1:]))
    assert torch.allclose(both.image[1:], second.image, atol=1e-6)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_self_deblur_networks_take_odd_sizes() -> None:
    assert ImageNetwork(3)(torch.rand(1, 8, 45, 51)).shape == (1, 3, 45, 51)
    kernel = kernel_network(7)(torch.rand(1, 200)).detach()
    assert kernel.shape == (1, 49)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
