from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import HQS, BlindSearch, MostCautious, Pass, Posterior, Proximal, SearchConfig, Start
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.restoration import image as restoration
from latentdem.restoration.image import ImageRestoration, KnownKernelConfig, interior_mask
from latentdem.search.config import Round

Scene = Callable[..., Tensor]
Report = list[tuple[str, int, int]]

QUICK = SearchConfig(
    starts=(Start(0.3),) * 2,
    coarse=(Round((Pass(2),), HQS(2, 1e6), 2),),
    fine=(Round((Pass(4, 500),), HQS(2, 1e6)),),
    largest_kernel=10,
)


def make(
    prior: EmbeddedPrior, size: int, circular: bool, seen: Report | None = None, again: bool = True
) -> ImageRestoration:
    find = BlindSearch(prior, KernelDenoiser().requires_grad_(False), QUICK)
    known = KnownKernelConfig((Pass(3),), num_samples=2)
    report = None if seen is None else lambda *event: seen.append(event)
    return ImageRestoration(find, known, again, size, 0, circular, report)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "WORKING_SIZE", 64)
    monkeypatch.setattr(restoration, "SEARCH_SIZE", 40)


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize(("height", "width", "size"), [(40, 51, 9), (47, 33, 14), (17, 60, 17)])
@pytest.mark.parametrize("known", [True, False])
def test_any_size(
    scene: Scene, tiny_prior: EmbeddedPrior, height: int, width: int, size: int, circular: bool, known: bool
) -> None:
    y, seen = scene(height, width), []
    job = make(tiny_prior, size, circular, seen)
    kernel = gaussian_kernel(size, 1.5)
    found = job.run(y, torch.tensor([0.02]), kernel if known else None)
    assert found.image.shape == y.shape
    assert found.image.abs().max() <= 1
    assert found.parameters.shape == kernel.shape
    assert not known or torch.equal(found.parameters, kernel)
    assert torch.isfinite(found.residual).all()
    assert seen[-1][1] == seen[-1][2]
    assert list(job.seconds) == (["restoration"] if known else ["kernel search", "restoration"])


def test_image_of_the_search_can_be_the_result(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y, seen = scene(32, 32), []
    job = make(tiny_prior, 9, True, seen, again=False)
    found = job.run(y, torch.tensor([0.02]), None)
    assert found.image.shape == y.shape
    assert seen[-1][1] == seen[-1][2]
    assert list(job.seconds) == ["kernel search"]


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("known", [True, False])
def test_large_photographs_go_in_tiles(scene: Scene, tiny_prior: EmbeddedPrior, known: bool) -> None:
    y, seen = torch.cat([scene(90, 75, seed=1), scene(90, 75, seed=2)]), []
    kernel = gaussian_kernel(9, 1.5).repeat(2, 1, 1, 1)
    job = make(tiny_prior, 9, False, seen)
    found = job.run(y, torch.full((2,), 0.02), kernel if known else None)
    assert found.image.shape == y.shape
    assert found.parameters.shape == (2, 1, 9, 9)
    assert all(step.parameters.shape[0] == 2 for step in found.trace)
    assert bool(found.trace) != known
    done = [event[1] for event in seen]
    assert done == sorted(set(done))
    assert done[-1] == seen[-1][2]
    assert job.seconds["restoration"] > 0


@pytest.mark.usefixtures("small_tiles")
def test_no_more_than_a_tile_is_restored_at_once(
    scene: Scene, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    decode = tiny_prior.decode
    monkeypatch.setattr(tiny_prior, "decode", lambda z, h, w: sizes.append((h, w)) or decode(z, h, w))
    make(tiny_prior, 9, False).run(scene(200, 70), torch.tensor([0.02]), None)
    assert max(max(s) for s in sizes) <= 64


@pytest.mark.parametrize("size", [1, 8, 9])
def test_interior_mask_is_where_no_pixel_from_outside_is_seen(size: int) -> None:
    mask = interior_mask(20, 24, size, torch.device("cpu"))
    outside = torch.zeros(1, 1, 60, 60)
    outside[..., 20:40, 18:42] = -1
    outside += 1
    seen = ext.blur(outside, torch.ones(1, 1, size, size))[..., 20:40, 18:42]
    expected = (seen.abs() < 1e-3).float()
    assert torch.equal(expected, torch.ones_like(expected) if mask is None else mask)


def test_a_found_kernel_is_trusted_less_than_a_given_one() -> None:
    given = KnownKernelConfig(num_samples=3)
    cautious = given.cautious()
    assert cautious.e_step == Proximal(MostCautious())
    assert cautious.consistency == MostCautious()
    assert cautious.num_samples == 3
    assert KnownKernelConfig(e_step=Posterior()).cautious().e_step == Posterior()
