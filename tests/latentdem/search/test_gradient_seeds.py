"""Seeds: kernels at a coarse scale from parts of a photograph."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from skimage import data
from torch import Tensor

from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.search import gradient_seeds
from latentdem.search.gradient_chain import SETTINGS, alternate, first_kernels, widths_to
from latentdem.search.gradient_input import GradientInput
from latentdem.search.gradient_scale import resize
from latentdem.search.gradient_score import kernel_radius
from latentdem.search.gradient_seeds import different, seed_width, seeds, without_parts

K = 21


@pytest.fixture(scope="module")
def kernel() -> Tensor:
    return motion_kernels(1, K, 0.5, seed=7)


@pytest.fixture(scope="module")
def inputs(kernel: Tensor) -> GradientInput:
    """A blurred photograph of 180 x 236 pixels, in [-1, 1] before, that does not wrap around."""
    x = torch.from_numpy(data.camera()[60:460:2, 0:512:2].copy()).float()[None, None] / 127.5 - 1
    y = torch.nn.functional.conv2d(x, kernel.flip(-1, -2))
    y = y + 0.005 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return GradientInput.of(y, K, None, False, 1)


def mnc(estimate: Tensor, truth: Tensor) -> float:
    return float(kernel_metrics(estimate, truth).mnc)


@pytest.mark.parametrize(("size", "expected"), [(75, 27), (45, 21), (27, 19), (15, 11), (3, 3)])
def test_seeds_are_taken_below_full_size(size: int, expected: int) -> None:
    assert seed_width(size) == expected
    assert expected in widths_to(size)


def test_the_best_seed_is_the_reduced_kernel(inputs: GradientInput, kernel: Tensor) -> None:
    width = seed_width(K)
    found = seeds(inputs, 3, 0.0025, lambda: None).kernels
    assert 1 <= len(found) <= 3
    assert found.shape[1:] == (1, width, width)
    torch.testing.assert_close(found.sum((-2, -1)), torch.ones(len(found), 1))
    assert mnc(found[:1], resize(kernel, (width, width)).clamp_min(0)) > 0.85


def test_seeds_say_how_far_the_blur_extends(inputs: GradientInput, kernel: Tensor) -> None:
    found = seeds(inputs, 1, 0.0025, lambda: None)
    assert found.radius == pytest.approx(float(kernel_radius(kernel)), rel=0.15)
    assert found.least_radius == pytest.approx(0.7 * found.radius)


@pytest.mark.parametrize("size", [15, 45, 59])
def test_a_small_blur_is_small_in_a_large_kernel_too(size: int) -> None:
    """Its coarse scales cannot show it, and the right kernels must not pass for parts of a larger blur."""
    x = torch.from_numpy(data.camera()[60:460:2, 0:512:2].copy()).float()[None, None] / 127.5 - 1
    kernel = gaussian_kernel(9, 0.8)
    y = torch.nn.functional.conv2d(x, kernel)
    y = y + 0.005 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = seeds(GradientInput.of(y, size, None, False, 1), 1, 0.0025, lambda: None)
    assert found.least_radius < float(kernel_radius(kernel))


def test_kernels_of_a_small_radius_are_left_out_if_there_are_others() -> None:
    kernels = torch.cat([gaussian_kernel(21, width) for width in (1.0, 3.0, 2.0)])
    assert torch.equal(without_parts(kernels, 2.5), kernels[1:])  # radii 1.4, 4.2 and 2.8
    assert torch.equal(without_parts(kernels, 10.0), kernels)


def test_parts_help_where_edges_of_the_whole_mislead(
    inputs: GradientInput, kernel: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of kernels from the whole and from parts, those that explain the photograph best are kept."""
    width = seed_width(K)
    truth, wrong = resize(kernel, (width, width)).clamp_min(0), torch.rand(1, 1, width, width)
    wrong, truth = wrong / wrong.sum(), truth / truth.sum()

    def known(part: GradientInput, settings: object, start: Tensor, widths: object, sigma: float) -> Tensor:
        if part.repeats != len(SETTINGS):
            return start  # the judgement on the whole
        return (wrong if part.grey.shape == inputs.grey.shape else truth).repeat(len(SETTINGS), 1, 1, 1)

    monkeypatch.setattr(gradient_seeds, "alternate", known)
    monkeypatch.setattr(gradient_seeds, "_JUDGED", 2)
    found = seeds(inputs, 2, 0.0025, lambda: None).kernels
    torch.testing.assert_close(found, torch.cat([truth, wrong]))


def test_small_photographs_have_no_parts(inputs: GradientInput, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def remembered(
        part: GradientInput, settings: object, start: Tensor, widths: list[int], sigma: float
    ) -> Tensor:
        sizes.append(tuple(part.grey.shape[-2:]))
        return start.new_ones((len(start), 1, widths[-1], widths[-1])) / widths[-1] ** 2

    monkeypatch.setattr(gradient_seeds, "alternate", remembered)
    small = replace(inputs, grey=inputs.grey[..., :80, :90], mask=inputs.mask[..., :80, :90])
    seeds(small, 1, 0.0025, lambda: None)
    assert set(sizes) == {(80, 90)}
    sizes.clear()
    seeds(inputs, 1, 0.0025, lambda: None)
    assert sizes.count((108, 142)) == 5


def test_different_kernels_are_kept_best_first(kernel: Tensor) -> None:
    shifted, turned = kernel.roll((1, 1), (-2, -1)), kernel.flip(-2, -1)
    kernels = torch.cat([turned, kernel, shifted])
    kept = different(kernels, torch.tensor([-1.0, -2.0, -3.0]), 3)
    assert torch.equal(kept, torch.cat([shifted, turned]))
    assert torch.equal(different(kernels, torch.tensor([-1.0, -2.0, -3.0]), 1), shifted)


def test_the_alternation_can_be_continued_where_it_stopped(inputs: GradientInput) -> None:
    widths, settings = widths_to(K)[:4], SETTINGS[:2]
    twice, start = replace(inputs, repeats=2), first_kernels(2, inputs.grey)
    whole = alternate(twice, settings, start, widths, 0.0025)
    half = alternate(twice, settings, start, widths[:2], 0.0025)
    torch.testing.assert_close(alternate(twice, settings, half, widths[2:], 0.0025), whole)
