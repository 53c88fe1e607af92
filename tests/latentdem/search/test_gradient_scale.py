"""One scale of the gradient-based start: what hypotheses share, and the clean-up of kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentdem.search.gradient_scale import Scale, cleaned


def kernels() -> Tensor:
    """Two kernels (2, 1, 7, 7) in one piece each, which would touch if one stood below the other."""
    kernel = torch.zeros(2, 1, 7, 7)
    kernel[0, 0, 3:, 3] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    kernel[1, 0, 0, 2:5] = torch.tensor([0.5, 0.1, 0.1])
    return kernel


def test_kernels_of_a_batch_are_cleaned_as_if_each_were_alone() -> None:
    together = cleaned(kernels(), torch.zeros(2, 1, 7, 7))
    for n in range(2):
        alone = cleaned(kernels()[n : n + 1], torch.zeros(1, 1, 7, 7))
        torch.testing.assert_close(together[n : n + 1], alone, rtol=0, atol=1e-7)


def test_a_cleaned_kernel_has_sum_one_and_its_mass_in_the_middle() -> None:
    result = cleaned(kernels()[:1], torch.zeros(1, 1, 7, 7))
    expected = torch.zeros(7, 7)
    expected[1:5, 3] = torch.tensor([0.1, 0.2, 0.3, 0.4])  # the centre of mass was row 5
    torch.testing.assert_close(result[0, 0], expected)


@pytest.mark.parametrize(("value", "kept"), [(0.3, False), (0.1, False), (2.0, True)])
def test_small_parts_and_faint_values_are_removed(value: float, kept: bool) -> None:
    kernel = kernels()[:1]
    kernel[0, 0, 3, 0] = value
    result = cleaned(kernel, torch.zeros_like(kernel))
    assert int((result > 0).sum()) == 4 + kept
    assert float(result.sum()) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, -1.0, torch.nan, torch.inf])
def test_the_fallback_is_taken_where_nothing_remains(value: float) -> None:
    kernel, fallback = kernels(), torch.rand(2, 1, 7, 7)
    kernel[1] = value
    result = cleaned(kernel, fallback)
    assert torch.equal(result[1], fallback[1])
    torch.testing.assert_close(result[:1], cleaned(kernels()[:1], fallback[:1]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("circular", [False, True])
def test_hypotheses_of_an_image_stand_next_to_each_other(circular: bool) -> None:
    y, mask = torch.rand(2, 1, 24, 30), torch.ones(2, 1, 24, 30)
    mask[1, :, 10:14, 10:14] = 0
    frames = [0.0, 0.4, 0.2, 0.6]
    scale = Scale(y, mask, 5, frames, circular)
    for n, frame in enumerate(frames):
        rows = slice(n // 2, n // 2 + 1)
        alone = Scale(y[rows], mask[rows], 5, [frame], circular)
        for name in ("y", "spectrum", "inside"):
            torch.testing.assert_close(getattr(scale, name)[n], getattr(alone, name)[0])
