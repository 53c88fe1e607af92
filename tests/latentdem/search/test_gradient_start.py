"""Kernel estimates from gradients alone, on simulated photographs with and without a periodic boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.images import read_image
from latentdem.metrics import kernel_metrics
from latentdem.operators.blur import pad_kernel
from latentdem.operators.kernels import gaussian_kernel
from latentdem.search import gradient_start
from latentdem.search.gradient_input import GradientInput, edge_window
from latentdem.search.gradient_score import kernel_radius, score_kernels, turned_lead
from latentdem.search.gradient_seeds import Estimates
from latentdem.search.gradient_start import (
    Starts,
    automatic_sizes,
    estimate_kernels,
    shared_starts,
    sizes_around,
    starts_for,
)
from latentdem.solver.measurement import Measurement

K = 15
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="module")
def kernel() -> Tensor:
    """A hook (1, 1, K, K) that differs much from its own turned copy."""
    kernel = torch.zeros(K, K)
    for t in np.linspace(0, 1, 200):
        kernel[round(3 + 9 * t), round(3 + 8 * t * t)] += 1 + t
    kernel[12, 8:12] += 25
    return (kernel / kernel.sum())[None, None]


def blurred(kernel: Tensor, circular: bool, noise: float = 0.005) -> Tensor:
    """(1, 1, H, W) of a photograph in [-1, 1]: 160 x 160, or the part of it that a valid blur leaves."""
    x = torch.from_numpy(data.camera()[60:380:2, 120:440:2].astype(np.float32)) / 127.5 - 1
    half = K // 2
    padded = torch.nn.functional.pad(x[None, None], (half,) * 4, mode="circular")
    y = torch.nn.functional.conv2d(padded, kernel.flip(-1, -2))
    if not circular:
        y = y[..., half:-half, half:-half]
    return y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))


def mnc(estimate: Tensor, truth: Tensor) -> float:
    return kernel_metrics(estimate, truth).mnc


@pytest.mark.parametrize("circular", [False, True])
def test_the_kernel_is_recovered(kernel: Tensor, circular: bool) -> None:
    kernels = estimate_kernels(blurred(kernel, circular), K, noise_sigma=0.005, circular=circular).kernels
    assert 1 <= len(kernels) <= 3
    assert kernels.shape[1:] == (1, K, K)
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels.sum((-2, -1)), torch.ones(len(kernels), 1))
    assert mnc(kernels[0], kernel[0]) > 0.9


def test_the_kernel_is_recovered_from_a_noisy_photograph(kernel: Tensor) -> None:
    kernels = estimate_kernels(blurred(kernel, False, 0.03), K, noise_sigma=0.03).kernels
    assert mnc(kernels[0], kernel[0]) > 0.75


def test_an_even_size_has_its_origin_at_half(kernel: Tensor) -> None:
    kernels = estimate_kernels(blurred(kernel, False), 16).kernels
    assert kernels.shape[-2:] == (16, 16)
    offsets = torch.arange(16.0) - 8
    assert ((kernels[:, 0].sum(1) * offsets).sum(1).abs() <= 0.51).all()


def test_a_circular_shift_of_the_photograph_does_not_change_the_kernel(kernel: Tensor) -> None:
    y = blurred(kernel, True)
    first, second = (estimate_kernels(y.roll((n, n), (-2, -1)), K, circular=True).kernels[0] for n in (0, 40))
    assert mnc(first, second) > 0.97


def test_estimates_are_deterministic(kernel: Tensor) -> None:
    y = blurred(kernel, False)[..., :96, :96]
    first, second = (estimate_kernels(y, 9).kernels for _ in range(2))
    assert torch.equal(first, second)


def test_a_constant_photograph_gives_finite_kernels() -> None:
    kernels = estimate_kernels(torch.zeros(1, 3, 64, 64), 9).kernels
    assert kernels.isfinite().all()
    torch.testing.assert_close(kernels.sum((-2, -1)), torch.ones(len(kernels), 1))


def test_a_masked_part_has_no_influence(kernel: Tensor) -> None:
    y = blurred(kernel, False)
    mask = torch.ones_like(y)
    y[..., 100:140, 20:90] = torch.sign(torch.randn(40, 70, generator=torch.Generator().manual_seed(1)))
    mask[..., 100:140, 20:90] = 0
    kernels = estimate_kernels(y, K, mask=mask).kernels
    assert mnc(kernels[0], kernel[0]) > 0.8


def test_the_turned_kernel_scores_worse(kernel: Tensor) -> None:
    scores = score_kernels(blurred(kernel, False), torch.stack([kernel, kernel.flip(-1, -2)], 1))
    assert scores[0, 0] < scores[0, 1]


@pytest.mark.parametrize("size", [K, K + 1])
def test_the_lead_over_the_turned_kernel_has_a_sign(kernel: Tensor, size: int) -> None:
    y = blurred(kernel, False).expand(2, -1, -1, -1)
    measurement = Measurement(y, torch.tensor([0.005, 0.005]), circular=False)
    turned = torch.cat([kernel, kernel.flip(-1, -2)])
    lead = turned_lead(measurement, pad_kernel(turned, size))
    assert lead[0] > 0.02
    torch.testing.assert_close(lead[1], -lead[0])
    assert turned_lead(measurement, gaussian_kernel(size, 2.0).expand(2, -1, -1, -1)).abs().max() < 1e-3


def test_the_radius_of_a_kernel_does_not_depend_on_where_it_lies() -> None:
    kernels = torch.zeros(2, 1, 9, 9)
    kernels[0, 0, 1, 2] = kernels[0, 0, 4, 6] = 2.0  # half of their distance
    kernels[1, 0, 3:6, 3:6] = 1.0  # sqrt(2 / 3) along each axis
    torch.testing.assert_close(kernel_radius(kernels), torch.tensor([2.5, (4 / 3) ** 0.5]))
    torch.testing.assert_close(kernel_radius(kernels.roll((1, 2), (-2, -1))), kernel_radius(kernels))


@pytest.mark.parametrize("size", [2, 33])
def test_kernel_sizes_outside_the_photograph_are_refused(size: int) -> None:
    with pytest.raises(UserError, match="kernel size"):
        estimate_kernels(torch.zeros(1, 1, 32, 40), size)


@pytest.mark.parametrize("circular", [False, True])
def test_a_kernel_may_be_as_large_as_the_photograph(circular: bool) -> None:
    y = torch.rand(1, 1, 24, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kernels = estimate_kernels(y, 24, circular=circular).kernels
    assert kernels.isfinite().all()
    assert score_kernels(y, kernels[None], circular=circular).isfinite().all()


def test_the_edge_window_holds_the_texture_and_avoids_masked_pixels() -> None:
    y = torch.zeros(1, 3, 90, 120)
    y[..., 10:40, 20:50] = torch.rand(30, 30, generator=torch.Generator().manual_seed(0))
    rows, columns = edge_window(y, 40, 5)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (40, 40)
    assert rows.start <= 10
    assert rows.stop >= 40
    assert columns.start <= 20
    assert columns.stop >= 50
    y[..., 50:80, 80:110] = torch.rand(30, 30, generator=torch.Generator().manual_seed(1)) / 2
    mask = torch.ones(1, 1, 90, 120)
    mask[..., 5:45, 15:55] = 0
    rows, columns = edge_window(y, 40, 5, mask)
    assert rows.stop >= 80
    assert columns.stop >= 110
    assert edge_window(y, 100, 5)[0] == slice(0, 90)


def test_starts_of_two_sizes_are_sorted_by_one_score(kernel: Tensor) -> None:
    y = blurred(kernel, False)[..., 10:130, 10:130].expand(-1, 3, -1, -1)
    y = torch.cat([y, y.flip(-1)])
    measurement = Measurement(y, torch.tensor([0.005, 0.01]), circular=False)
    starts = starts_for(measurement, 20, (12, 20))
    kernels, scores = starts.kernels, starts.scores
    assert kernels.shape == (*scores.shape, 1, 20, 20)
    torch.testing.assert_close(kernels.sum((-2, -1)), torch.ones(*scores.shape, 1))
    assert (scores[:, 1:] >= scores[:, :-1]).all()
    assert mnc(kernels[0, 0], kernel[0]) > 0.9
    assert mnc(kernels[1, 0], kernel[0].flip(-1)) > 0.9
    offsets = torch.arange(20.0) - 10
    assert ((kernels.sum(-1) * offsets).sum(-1).abs() <= 1).all()
    for n in (0, 1):
        alone = starts_for(measurement.rows(slice(n, n + 1)), 20, (12, 20))
        count = alone.scores.shape[1]
        assert torch.equal(alone.kernels[0], kernels[n, :count])
        assert torch.equal(alone.scores[0], scores[n, :count])
        assert torch.equal(alone.radius[0], starts.radius[n])
        assert scores[n, count:].isinf().all()


@pytest.mark.parametrize(("side", "small"), [(120, True), (200, False)])
def test_a_size_without_parts_of_the_photograph_is_one_bound_of_the_radius(
    kernel: Tensor, monkeypatch: pytest.MonkeyPatch, side: int, small: bool
) -> None:
    """Parts are 0.6 of a side and three sizes of 31 pixels wide at least."""
    measurement = Measurement(torch.zeros(1, 3, side, 220), torch.tensor([2.0**-7]), circular=False)
    seen = []

    def at_15(inputs: GradientInput, sigma: float) -> float:
        seen.append((inputs.kernel_size, sigma))
        return 2.0

    for radius in (5.0, 1.0):
        fake = Estimates(pad_kernel(kernel, 31), radius)
        monkeypatch.setattr(gradient_start, "estimate_kernels", lambda *_, fake=fake, **__: fake)
        monkeypatch.setattr(gradient_start, "radius_of_blur", at_15)
        found = starts_for(measurement, 31, (31,)).radius
        assert found[0].tolist() == (sorted((radius, 2.0)) if small else [radius, radius])
    assert seen == [(15, 2.0**-8)] * 2 * small


def test_the_radius_of_a_shared_kernel_is_a_low_one_of_all(kernel: Tensor) -> None:
    measurement = Measurement(blurred(kernel, False).repeat(3, 1, 1, 1), torch.full((3,), 0.005), None, False)
    kernels, scores = kernel.expand(3, 1, -1, -1, -1), torch.zeros(3, 1)
    starts = Starts(kernels, scores, torch.tensor([[2.0, 3.0], [2.2, 3.2], [8.0, 9.0]]))
    shared = shared_starts(starts, measurement, 1).radius
    torch.testing.assert_close(shared, torch.tensor([[2.1, 3.1]]).expand(3, -1))


@pytest.mark.parametrize("side", [160, 120])
def test_sizes_too_small_for_every_kernel_of_the_next_larger_one_are_skipped(
    kernel: Tensor, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    """Unless the photograph is small beside the larger one, which may be wrong then."""
    measurement = Measurement(torch.zeros(1, 3, side, 220), torch.tensor([0.005]), circular=False)
    sizes = []

    def remembered(y: Tensor, size: int, **options: Any) -> Estimates:
        sizes.append(size)
        return Estimates(pad_kernel(kernel, size) if size > 5 else kernel[..., 5:10, 5:10], 0.0)

    monkeypatch.setattr(gradient_start, "estimate_kernels", remembered)
    starts_for(measurement, 31, (5, 7, 31), skip=True)
    assert sizes == ([31] if side == 160 else [31, 7])
    sizes.clear()
    starts_for(measurement, 31, (5, 17, 31))
    assert sizes == [31, 17, 5]


def test_kernels_smaller_than_an_estimate_that_cannot_be_trusted_are_no_parts(
    kernel: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right kernel, found at a smaller size, beside one that fills the frame of a size without parts."""
    measurement = Measurement(blurred(kernel, False), torch.tensor([0.005]), circular=False)
    wide = torch.full((1, 1, 45, 45), 1 / 45**2)

    def estimates(y: Tensor, size: int, **options: Any) -> Estimates:
        return Estimates(wide, 18.0) if size == 45 else Estimates(pad_kernel(kernel, size), 2.0)

    monkeypatch.setattr(gradient_start, "estimate_kernels", estimates)
    monkeypatch.setattr(gradient_start, "radius_of_blur", lambda *_: 2.0)
    found = starts_for(measurement, 45, (15, 45), skip=True)
    assert found.kernels.shape[1] == 2
    torch.testing.assert_close(found.kernels[0, 0], pad_kernel(kernel, 45)[0])


def test_starts_at_a_larger_size_are_cropped_to_the_kernel(kernel: Tensor) -> None:
    y = blurred(kernel, False).expand(-1, 3, -1, -1)
    measurement = Measurement(y, torch.tensor([0.005]), circular=False)
    whole, cropped = (starts_for(measurement, size, (23,)) for size in (23, K))
    part = whole.kernels[..., 4:-4, 4:-4]
    torch.testing.assert_close(cropped.kernels, part / part.sum((-2, -1), keepdim=True))
    torch.testing.assert_close(cropped.scores, whole.scores)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [(27, 255, (27, 43)), (20, 255, (20, 32)), (20, 25, (20, 24)), (25, 25, (25,)), (3, 16, (3, 5))],
)
def test_sizes_around_a_given_one_keep_its_origin(size: int, side: int, expected: tuple[int, ...]) -> None:
    assert sizes_around(size, side) == expected


@pytest.mark.parametrize(
    ("side", "expected"), [(255, (15, 27, 45, 75)), (200, (15, 27, 45)), (45, (15,)), (30, (15,)), (16, (15,))]
)
def test_automatic_sizes_are_at_most_a_third_of_the_side_or_the_least(
    side: int, expected: tuple[int, ...]
) -> None:
    assert automatic_sizes(side) == expected
    assert max(expected) <= side


def test_scores_of_a_colour_photograph_know_the_noise_of_the_mean_of_its_channels(kernel: Tensor) -> None:
    clear, kernels, sigma = blurred(kernel, False, 0.0), kernel[:, None], 0.1
    generator = torch.Generator().manual_seed(1)
    colour = clear + sigma * torch.randn((1, 3, *clear.shape[-2:]), generator=generator)
    grey = colour.mean(1, keepdim=True)
    expected = score_kernels(grey, kernels, noise_sigma=sigma / 3**0.5)
    torch.testing.assert_close(score_kernels(colour, kernels, noise_sigma=sigma), expected, rtol=0, atol=0.05)
    equal = score_kernels(grey.repeat(1, 3, 1, 1), kernels, noise_sigma=sigma)
    torch.testing.assert_close(equal, score_kernels(grey, kernels, noise_sigma=sigma))
    assert (expected - equal).abs() > 0.2


@pytest.mark.slow
@pytest.mark.parametrize("size", [48, 64])
def test_the_start_for_the_example_is_close_to_its_kernel(size: int) -> None:
    y = read_image(EXAMPLES / "blurred.png").pixels
    truth = torch.from_numpy(np.load(EXAMPLES / "kernel.npy"))
    sizes = sizes_around(size, min(y.shape[-2:]))
    starts = starts_for(Measurement(y, torch.tensor([0.02]), circular=False), size, sizes)
    values, scores = [mnc(estimate, truth) for estimate in starts.kernels[0]], starts.scores[0].tolist()
    print(f"K {size}, MNC {[round(v, 3) for v in values]}, scores {[round(v, 4) for v in scores]}")
    assert values[0] > 0.88  # .93 for 48 and .94 for 64 pixels
    padded = pad_kernel(truth.view(1, 1, 1, 48, 48), max(sizes))  # scores are comparable in one frame
    assert score_kernels(y, padded, noise_sigma=0.02) < scores[0]
