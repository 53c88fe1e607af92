from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.api.one_kernel import spread
from latentdem.operators import AntiAliasing, DiskKernels, GaussianKernels, KernelFamily, StridedBlur
from latentdem.priors import EmbeddedPrior
from latentdem.search.family import FamilySearch
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Hooks

Scene = Callable[..., Tensor]


def found_by(prior: Any, family: KernelFamily, y: Tensor, size: int) -> Tensor:
    """The parameters that the search finds."""
    sigma, generator = torch.full((len(y),), 0.02), torch.Generator().manual_seed(0)
    found = FamilySearch(prior, family)(Measurement(y, sigma), size, generator)
    assert found.parameters.shape == (len(y), 1, size, size)
    assert len(found.trace) == 5
    assert found.trace[0].parameters.shape == found.parameters.shape
    return family.fit(found.parameters)


@pytest.mark.parametrize(
    ("family", "truth"), [(DiskKernels(), [2.4]), (GaussianKernels(), [1.9, 0.8])], ids=["disk", "gaussian"]
)
def test_a_prior_that_knows_the_image_finds_the_parameters(
    scene: Scene, lossy: Callable[[Tensor], Any], family: KernelFamily, truth: list[float]
) -> None:
    x = scene(48, 48)
    y = ext.blur(x, family.kernel(torch.tensor([truth]), 13))
    y = y + 0.02 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found_by(lossy(x), family, y, 13), torch.tensor([truth]), rtol=0.08, atol=0)


def test_super_resolution_finds_its_anti_aliasing(scene: Scene, lossy: Callable[[Tensor], Any]) -> None:
    x, family = scene(48, 48), AntiAliasing(2)
    small = ext.blur(x, family.kernel(torch.tensor([[1.1]]), 12))[..., ::2, ::2]
    y, mask = spread(small, 2)

    def operator(size: int, **options: Any) -> StridedBlur:
        return StridedBlur(size, stride=2, **options)

    search = FamilySearch(lossy(x), family, operator)
    found = search(Measurement(y, torch.tensor([0.02]), mask), 12, torch.Generator().manual_seed(0))
    assert float(family.fit(found.parameters)) == pytest.approx(1.1, rel=0.08)


def test_batch_gives_what_single_runs_give(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y = torch.cat([scene(24, 24, seed=s) for s in range(2)])
    both = found_by(tiny_prior, DiskKernels(), y, 9)
    single = torch.cat([found_by(tiny_prior, DiskKernels(), one[None], 9) for one in y])
    torch.testing.assert_close(both, single, rtol=1e-3, atol=0)


@pytest.mark.parametrize("family", [DiskKernels(), GaussianKernels()], ids=["disk", "gaussian"])
def test_work_is_what_is_done(scene: Scene, tiny_prior: EmbeddedPrior, family: KernelFamily) -> None:
    search, done = FamilySearch(tiny_prior, family), []
    hooks = Hooks(lambda _, pixels: done.append(pixels))
    search(Measurement(scene(24, 24), torch.tensor([0.02])), 9, torch.Generator(), hooks=hooks)
    assert sum(done) == search.work(24, 24, 9)
