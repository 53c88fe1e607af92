from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem.errors import UserError
from latentdem.evaluation import EvaluationSettings, Task, rivals
from latentdem.evaluation.on_pictures import OnPictures
from latentdem.evaluation.picture_comparison import picture_methods
from latentdem.evaluation.pictures import PictureTask
from latentdem.evaluation.rivals import BlindDPSRival, GibbsDDRMRival
from latentdem.operators.blur import Blur
from latentdem.operators.kernels import motion_kernels
from latentdem.output.result import Result
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.restoration.settings import Settings
from latentdem.solver.gibbs_ddrm import GibbsDDRM

Scene = Callable[..., Tensor]
RIVALS = {
    "blinddps": BlindDPSRival(),
    "blinddps-denoiser": BlindDPSRival(approximate=True),
    "gibbsddrm": GibbsDDRMRival(GibbsDDRM(updates=1, langevin=10)),
}


@pytest.fixture
def task(scene: Scene, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A blurred picture, the smallest priors and few steps."""
    networks = (tiny_prior, KernelDenoiser(2, 4))
    monkeypatch.setattr(rivals, "networks", lambda prior, device: networks)
    sharp, kernel = scene(32, 32), motion_kernels(1, 9, 0.5, 0)
    settings = EvaluationSettings(kernel_size=9, steps=3)
    return Task(Blur(9)(sharp, kernel), kernel, settings, torch.device("cpu"), lambda *_: None)


def check(result: Result, task: Task) -> None:
    assert result.finite
    assert result.tensor.shape == task.blurred.shape
    assert result.tensor.abs().max() <= 1
    assert result.kernel.shape == task.kernel.shape
    assert result.kernel.min() >= 0
    torch.testing.assert_close(result.kernel.sum((1, 2, 3)), torch.ones(len(result.kernel)))


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_restores_image_and_kernel(task: Task, name: str) -> None:
    seen: list[tuple[str, int, int]] = []
    task = replace(task, progress=lambda *args: seen.append(args))
    result = RIVALS[name](task)
    check(result, task)
    assert [step.t for step in result.trace] == [999, 666, 332]
    assert [(done, total) for _, done, total in seen] == [(1, 3), (2, 3), (3, 3)]
    assert result.seconds["total"] > 0
    again = RIVALS[name](task)
    assert torch.equal(result.tensor, again.tensor)
    assert torch.equal(result.kernel, again.kernel)


@pytest.mark.parametrize("name", RIVALS)
def test_the_true_kernel_is_not_used(task: Task, name: str) -> None:
    other = replace(task, kernel=torch.rand_like(task.kernel))
    assert torch.equal(RIVALS[name](task).kernel, RIVALS[name](other).kernel)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("changed", [{"boundary": "valid"}, {"estimate_noise": True}], ids=["valid", "noise"])
def test_other_boundaries_and_an_unknown_noise(task: Task, name: str, changed: dict[str, Any]) -> None:
    grey = task.blurred.mean(1, keepdim=True)
    task = replace(task, blurred=grey, settings=replace(task.settings, **changed))
    result = RIVALS[name](task)
    check(result, task)
    assert result.residual.shape == (1,)
    if "estimate_noise" in changed:
        assert float(result.noise_sigma) != task.settings.noise_sigma


@pytest.mark.parametrize("name", RIVALS)
def test_real_pictures(task: Task, name: str) -> None:
    """The same problem, given as a real picture, has the same result; its boundary and noise may be unknown."""
    circular = Settings(kernel_size=9, noise_sigma=0.02, steps=3, boundary="circular")
    picture = PictureTask(task.blurred, None, circular, "embedded", task.device, task.progress)
    method = OnPictures(RIVALS[name])
    assert torch.equal(method(picture).tensor, RIVALS[name](task).tensor)
    check(method(replace(picture, settings=Settings(kernel_size=9, steps=3))), task)
    with pytest.raises(UserError, match="give a --kernel-size"):
        method(replace(picture, settings=Settings(steps=3)))


def test_real_pictures_are_compared_where_rivals_are_named() -> None:
    def chosen(*names: str) -> list[tuple[str, bool]]:
        return [(each.name, each.non_blind) for each in picture_methods(names, (), non_blind=True)]

    assert chosen("all") == [("deblur", True)]
    assert chosen("gibbsddrm", "deblur") == [("deblur", True), ("gibbsddrm", False)]
    with pytest.raises(UserError, match=r"deblur, deblur-.*, blinddps, blinddps-denoiser, gibbsddrm"):
        chosen("other")


def test_what_tells_the_rivals_apart_is_in_their_text() -> None:
    texts = [str(rival) for rival in (*RIVALS.values(), GibbsDDRMRival())]
    assert len(set(texts)) == 4
