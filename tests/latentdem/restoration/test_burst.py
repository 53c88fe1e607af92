"""Bursts: one image from several photographs of a scene, each with its own blur."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem
import latentdem_ext as ext
from latentdem.errors import UserError
from latentdem.metrics import image_metrics, kernel_metrics
from latentdem.operators.blur import pad_kernel
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.output.result import Result
from latentdem.restoration.burst import BurstRestoration
from latentdem.restoration.image import ImageRestoration
from latentdem.restoration.joint import JointRestoration
from latentdem.restoration.settings import Settings
from latentdem.search.gradient_score import kernel_radius
from latentdem.search.layout import Layout
from latentdem.solver.frame import Frame
from latentdem.solver.measurement import Measurement

Scene = Callable[..., Tensor]
CPU = torch.device("cpu")
SIDE, GRID, SIGMA = 70, 96, 0.01
SHIFTS = (0, 0), (3, -2), (-1, 4)  # of the photographs, in pixels (down, right)


@pytest.fixture(scope="module")
def kernels() -> Tensor:
    """(3, 1, 9, 9)."""
    return torch.cat([gaussian_kernel(9, 1.0), motion_kernels(2, 9, 0.5, seed=6)])


@pytest.fixture
def sharp(scene: Scene) -> Tensor:
    """(1, 3, 96, 96), of which photographs show a part."""
    return scene(GRID, GRID, seed=4)


@pytest.fixture
def photographs(sharp: Tensor, kernels: Tensor) -> Tensor:
    """(3, 3, 70, 70): each shows another part, blurred by another kernel."""
    blurred = [ext.blur(sharp, kernel[None]) for kernel in kernels]
    offset = (GRID - SIDE) // 2
    parts = [
        one[..., offset - down : offset - down + SIDE, offset - right : offset - right + SIDE]
        for one, (down, right) in zip(blurred, SHIFTS, strict=True)
    ]
    noise = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return torch.cat(parts) + SIGMA * noise


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, sharp: Tensor, kernels: Tensor) -> dict[str, Any]:
    """Replaces restorations of single photographs by nearly true ones; changes what a test puts here."""
    offset = (GRID - SIDE) // 2
    parts = [
        sharp[..., offset - down : offset - down + SIDE, offset - right : offset - right + SIDE]
        for down, right in SHIFTS
    ]
    found: dict[str, Any] = {"unexplained": torch.zeros(3), "tensor": torch.cat(parts)}

    def run(self: ImageRestoration, *_: object, progress: Any, **__: object) -> Result:
        progress("kernel search", 5, 10)
        sigma = torch.full((3,), SIGMA)
        return Result(found["tensor"], kernels, self.y, sigma, sigma, unexplained=found["unexplained"])

    monkeypatch.setattr(ImageRestoration, "run", run)
    return found


def restored(photographs: Tensor, prior: Any, **options: Any) -> Any:
    return BurstRestoration(photographs, Settings(9, quality="fast")).run(prior, None, CPU, **options)


def test_the_scene_is_restored_as_the_photograph_with_the_narrowest_blur_shows_it(
    photographs: Tensor, alone: dict[str, Any], kernels: Tensor, sharp: Tensor, lossy: Any
) -> None:
    done: list[float] = []
    result = restored(photographs, lossy(sharp), progress=lambda stage, part, whole: done.append(part / whole))
    assert result.settings["photographs"] == [1, 2, 3]
    torch.testing.assert_close(result.parameters["shift"][0], torch.tensor(SHIFTS).float(), atol=0.1, rtol=0)
    torch.testing.assert_close(result.parameters["rotation"][0], torch.zeros(3), atol=0.1, rtol=0)
    assert result.parameters["kernels"].shape == (1, 3, 9, 9)
    for found, true in zip(result.parameters["kernels"][0], kernels, strict=True):
        assert kernel_metrics(found, true).mnc > 0.9
    expected = alone["tensor"][:1]
    assert image_metrics(result.tensor, expected, radius=2).psnr > 30
    assert float(result.residual) < 0.05  # the contrast of the scene is ten times that
    assert done == sorted(done)
    assert done[-1] == 1


def test_a_photograph_that_no_kernel_explains_is_left_out(
    photographs: Tensor, alone: dict[str, Any], kernels: Tensor, sharp: Tensor, lossy: Any
) -> None:
    alone["unexplained"] = torch.tensor([0.9, 0.0, 0.0])
    reference = 1 + int(kernel_radius(kernels[1:]).argmin())
    moved = sharp.roll(SHIFTS[reference], (-2, -1))  # as the reference shows it
    with pytest.warns(UserWarning, match="Photograph 1 of the burst is left out"):
        result = restored(photographs, lossy(moved))
    assert result.settings["photographs"] == [reference + 1, 4 - reference]
    torch.testing.assert_close(result.measured, photographs[reference][None])
    assert image_metrics(result.tensor, alone["tensor"][reference][None], radius=2).psnr > 30


def test_a_burst_without_any_kernel_is_an_error(
    photographs: Tensor, alone: dict[str, Any], sharp: Tensor, lossy: Any
) -> None:
    alone["unexplained"] = torch.ones(3)
    with pytest.raises(UserError, match="No kernel was found that explains any"):
        restored(photographs, lossy(sharp))


def test_another_scene_is_named(
    photographs: Tensor, alone: dict[str, Any], sharp: Tensor, scene: Scene, lossy: Any
) -> None:
    alone["tensor"][2] = scene(SIDE, SIDE, seed=9)[0]
    with pytest.raises(UserError, match="Photograph 3: The photographs cannot be registered"):
        restored(photographs, lossy(sharp))


def test_one_photograph_is_no_burst(photographs: Tensor) -> None:
    with pytest.raises(UserError, match="two photographs or more"):
        BurstRestoration(photographs[:1])


def test_photographs_of_other_sizes_are_refused(scene: Scene) -> None:
    with pytest.raises(UserError, match="of one size and kind"):
        latentdem.burst([scene(40, 48), scene(48, 40)])


def test_kernels_keep_the_centre_that_the_frames_share(sharp: Tensor, kernels: Tensor, lossy: Any) -> None:
    """From kernels that are a pixel off: each is estimated again where its frame needs it, not centred."""
    frame = Frame((SIDE, SIDE), (GRID, GRID), ((GRID - SIDE) // 2,) * 2)
    off = torch.cat([kernels[:1].roll(1, -1), kernels[1:]])
    y = frame.crop(ext.blur(sharp.expand(3, -1, -1, -1).contiguous(), off))
    frames = Measurement(y, torch.full((3,), 0.005), torch.ones(3, 1, SIDE, SIDE), False)
    joint = JointRestoration(lossy(sharp), frames, Settings(9, quality="fast"), lambda *_: None)
    _, found = joint.run(off, frames.sigma)
    offsets = torch.arange(9) - 4.0
    for one, true in zip(found, off, strict=True):
        for axis in (-1, -2):
            places = [(kernel.sum((0, axis)) * offsets).sum() for kernel in (one, true)]
            assert float(places[0]) == pytest.approx(float(places[1]), abs=0.3)


def test_a_wrong_kernel_counts_less_in_the_first_image(sharp: Tensor, kernels: Tensor, lossy: Any) -> None:
    """Told by what it leaves of its frame: the kernels estimated from that image are better then."""
    frame = Frame((SIDE, SIDE), (GRID, GRID), ((GRID - SIDE) // 2,) * 2)
    y = frame.crop(ext.blur(sharp.expand(3, -1, -1, -1).contiguous(), kernels))
    frames = Measurement(y, torch.full((3,), 0.005), torch.ones(3, 1, SIDE, SIDE), False)
    wrong = torch.cat([kernels[:2], kernels[2:].rot90(1, (-2, -1)).roll(2, -1)])
    joint = JointRestoration(lossy(sharp), frames, Settings(9, quality="fast"), lambda *_: None)
    errors = [
        float((joint.run(wrong, residual)[1] - kernels).square().mean())
        for residual in (torch.tensor([0.005, 0.005, 0.2]), frames.sigma)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_large_photographs_are_restored_in_tiles(
    sharp: Tensor, kernels: Tensor, monkeypatch: pytest.MonkeyPatch, tiny_prior: Any
) -> None:
    monkeypatch.setattr("latentdem.search.layout.WORKING_SIZE", 64)
    monkeypatch.setattr("latentdem.search.layout.TILE_SIZE", 64)
    y = ext.blur(sharp.expand(3, -1, -1, -1).contiguous(), kernels)
    frames = Measurement(y, torch.full((3,), SIGMA), torch.ones(3, 1, GRID, GRID), False)
    assert not Layout.of(frames, 9).fits
    done: list[float] = []
    joint = JointRestoration(
        tiny_prior, frames, Settings(9, quality="fast"), lambda _, part, whole: done.append(part / whole)
    )
    image, found = joint.run(pad_kernel(kernels, 10)[..., :9, :9], frames.sigma)
    assert image.shape == sharp.shape
    assert found.shape == kernels.shape
    assert image.isfinite().all()
    assert done[-1] == 1
