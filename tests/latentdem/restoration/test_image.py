from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem import HQS, MostCautious, Pass, Posterior, Proximal, Result, SearchConfig, Settings, Start
from latentdem.operators.blur import pad_kernel
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.restoration.config import KnownKernelConfig, RestorationConfig
from latentdem.restoration.image import ImageRestoration
from latentdem.restoration.kernel_search import KernelSearch
from latentdem.search import layout
from latentdem.search.config import Round
from latentdem.search.gradient_first import Found, GradientFirst
from latentdem.solver.frame import interior_mask
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Candidates
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]
Report = list[tuple[str, int, int]]

QUICK = SearchConfig(
    starts=(Start(0.3),) * 2,
    coarse=(Round((Pass(2),), HQS(2, 1e6), 2),),
    fine=(Round((Pass(4, 500),), HQS(2, 1e6)),),
    largest_kernel=10,
)


def restoration(
    y: Tensor,
    size: int,
    circular: bool,
    *,
    kernel: Tensor | None = None,
    again: bool = True,
    gradients: GradientFirst | None = None,
) -> ImageRestoration:
    """A quick one; with the blind search alone unless there are `gradients`."""
    settings = Settings(size, 0.02, boundary="circular" if circular else "valid")
    known = KnownKernelConfig((Pass(3),), num_samples=2)
    config = RestorationConfig(search=QUICK, gradients=gradients, known=known, again=again)
    return ImageRestoration(y, settings, kernel, config=config)


def run(restoration: ImageRestoration, prior: EmbeddedPrior, seen: Report | None = None) -> Result:
    denoiser = KernelDenoiser().requires_grad_(False)
    progress = None if seen is None else lambda *event: seen.append(event)
    return restoration.run(prior, denoiser, torch.device("cpu"), progress=progress)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "WORKING_SIZE", 64)
    monkeypatch.setattr(layout, "TILE_SIZE", 64)
    monkeypatch.setattr(layout, "SEARCH_SIZE", 40)


@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize(("height", "width", "size"), [(40, 51, 9), (47, 33, 14), (17, 60, 17)])
@pytest.mark.parametrize("search", ["none", "blind", "gradients first"])
def test_any_size(
    scene: Scene, tiny_prior: EmbeddedPrior, height: int, width: int, size: int, circular: bool, search: str
) -> None:
    y, seen, known = scene(height, width), [], search == "none"
    kernel = gaussian_kernel(size, 1.5)
    gradients = GradientFirst() if search == "gradients first" else None
    run_once = restoration(y, size, circular, kernel=kernel if known else None, gradients=gradients)
    result = run(run_once, tiny_prior, seen)
    assert result.image.shape == y.shape
    assert result.image.abs().max() <= 1
    assert result.kernel.shape == kernel.shape
    assert not known or torch.equal(result.kernel, kernel)
    assert torch.isfinite(result.residual).all()
    assert seen[-1][1] == seen[-1][2]
    assert list(result.seconds)[:-1] == (["restoration"] if known else ["kernel search", "restoration"])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("side", [40, 80], ids=["whole", "tiles"])
@pytest.mark.parametrize("known", [True, False])
def test_default_search_measures_what_its_kernels_leave_unexplained(
    scene: Scene, tiny_prior: EmbeddedPrior, side: int, known: bool
) -> None:
    y = torch.cat([scene(side, side, seed=1), scene(side, side, seed=2)])
    job = restoration(y, 9, False, kernel=gaussian_kernel(9, 1.5) if known else None)
    job.config = replace(job.config, gradients=GradientFirst(tried=1, rounds=0, explained=1e9, low_noise=1))
    result = run(job, tiny_prior)
    assert result.model_error.shape == (2,)
    assert (result.model_error >= result.noise_sigma * 0.999).all()
    assert (result.unexplained is None) == known
    assert known or (result.unexplained.shape == (2,) and bool((result.unexplained >= 0).all()))
    assert known or (result.coverage.shape == result.lead.shape == (2,) and bool((result.coverage > 0).all()))


def test_searches_without_a_trial_measure_only_the_model_error(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    result = run(restoration(scene(32, 32), 9, True), tiny_prior)
    assert result.unexplained is None
    assert result.model_error >= result.noise_sigma * 0.999


@pytest.mark.parametrize("gradients", [None, GradientFirst()], ids=["blind", "gradients first"])
def test_image_of_the_search_can_be_the_result(
    scene: Scene, tiny_prior: EmbeddedPrior, gradients: GradientFirst | None
) -> None:
    y, seen = scene(32, 32), []
    result = run(restoration(y, 9, True, again=False, gradients=gradients), tiny_prior, seen)
    assert result.image.shape == y.shape
    assert seen[-1][1] == seen[-1][2]
    assert list(result.seconds) == ["kernel search", "total"]


def test_steps_that_led_to_kernels_of_different_sizes_are_joined(
    scene: Scene, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = {9: gaussian_kernel(9, 1.0), 13: gaussian_kernel(13, 2.0)}
    sizes = iter(kernels)

    def search(self: KernelSearch, photographs: Measurement, *_: object) -> Found:
        kernel = kernels[next(sizes)]
        frame = layout.Layout.of(photographs, kernel.shape[-1]).frame
        zero, trace = torch.zeros(1), [TraceStep("kernel search", 500, torch.zeros(1), kernel)]
        image = frame.extend(photographs).y
        return Found(Candidates(image, kernel, zero, zero, zero, trace), photographs, frame)

    monkeypatch.setattr(KernelSearch, "__call__", search)
    y = torch.cat([scene(40, 40, seed=1), scene(40, 40, seed=2)])
    job = restoration(y, 9, False, gradients=GradientFirst())
    job.settings = replace(job.settings, kernel_size=None)
    result = run(job, tiny_prior)
    (step,) = result.trace
    torch.testing.assert_close(step.parameters[:1], pad_kernel(kernels[9], 13))
    torch.testing.assert_close(step.parameters[1:], kernels[13])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("known", [True, False])
def test_large_photographs_are_restored_in_tiles(scene: Scene, tiny_prior: EmbeddedPrior, known: bool) -> None:
    y, seen = torch.cat([scene(66, 48, seed=1), scene(66, 48, seed=2)]), []
    kernel = gaussian_kernel(9, 1.5) if known else None
    result = run(restoration(y, 9, False, kernel=kernel), tiny_prior, seen)
    assert result.image.shape == y.shape
    assert result.kernel.shape == (2, 1, 9, 9)
    assert all(step.parameters.shape[0] == 2 for step in result.trace)
    assert bool(result.trace) != known
    done = [event[1] for event in seen]
    assert done == sorted(set(done))
    assert done[-1] == seen[-1][2]
    assert result.seconds["restoration"] > 0


@pytest.mark.usefixtures("small_tiles")
def test_no_more_than_a_tile_is_restored_at_once(
    scene: Scene, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    decode = tiny_prior.decode
    monkeypatch.setattr(tiny_prior, "decode", lambda z, h, w: sizes.append((h, w)) or decode(z, h, w))
    run(restoration(scene(104, 70), 9, False), tiny_prior)
    assert max(max(s) for s in sizes) <= 64


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("options", [{}, {"kernel": gaussian_kernel(9, 1.5)}], ids=["blind", "known"])
@pytest.mark.parametrize("side", [40, 80], ids=["whole", "tiles"])
def test_at_most_six_frames_from_deblur_to_the_loop_of_the_solver(
    scene: Scene,
    tiny_prior: EmbeddedPrior,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Tensor],
    side: int,
) -> None:
    depths = []

    def predict(z: Tensor, t: int) -> Tensor:
        names = [frame.function for frame in inspect.stack() if "latentdem" in frame.filename]
        depths.append(len(names) - names[::-1].index("deblur") - names.index("__call__"))
        return torch.zeros_like(z)

    monkeypatch.setattr(tiny_prior, "predict_noise", predict)
    latentdem.deblur(scene(side, side), 9, prior=tiny_prior, steps=2, boundary="valid", device="cpu", **options)
    assert max(depths) <= 6


@pytest.mark.parametrize("size", [1, 8, 9])
def test_interior_mask_is_where_no_pixel_from_outside_is_seen(size: int) -> None:
    mask = interior_mask(20, 24, size, torch.device("cpu"))
    outside = torch.zeros(1, 1, 60, 60)
    outside[..., 20:40, 18:42] = -1
    outside += 1
    seen = ext.blur(outside, torch.ones(1, 1, size, size))[..., 20:40, 18:42]
    expected = (seen.abs() < 1e-3).float()
    assert torch.equal(expected, torch.ones_like(expected) if mask is None else mask)


def test_data_weight_is_more_cautious_for_an_estimated_kernel() -> None:
    given = KnownKernelConfig(num_samples=3)
    cautious = given.cautious()
    assert cautious.e_step == Proximal(MostCautious(), iterations=0)
    assert cautious.consistency == MostCautious()
    assert cautious.num_samples == 3
    assert KnownKernelConfig(e_step=Posterior()).cautious().e_step == Posterior()
