"""The density over camera poses from the gradients of a photograph of a camera that turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor
from torch.nn import functional as F

from latentdem.metrics import kernel_metrics
from latentdem.search.camera_poses import KernelField
from latentdem.search.varying_start import VARYING_PARTS, estimate_field, field_score
from latentdem.solver.measurement import Measurement

K, SIDE = 15, 200


@pytest.fixture(scope="module")
def truth() -> KernelField:
    """A camera that goes to the right and down, and turns by 3 degrees."""
    turns = 13
    weights = torch.zeros(turns, K, K)
    for turn in range(turns):
        weights[turn, 5 + turn // 3, 3 + 2 * turn // 3] = 1 + turn % 3
    return KernelField(weights / weights.sum(), torch.linspace(-0.026, 0.026, turns), (SIDE, SIDE))


@pytest.fixture(scope="module")
def photograph(truth: KernelField) -> Measurement:
    """The mean of a turned and moved picture."""
    x = torch.from_numpy(data.camera()[20:500:2, 80:480:2][:240].astype(np.float32))[None, None] / 127.5 - 1
    x = F.interpolate(x, (240, 240), mode="bicubic")
    lines = torch.arange(240) - 119.5
    down, right = torch.meshgrid(lines, lines, indexing="ij")
    y = torch.zeros_like(x)
    for angle, plane in zip(truth.angles, truth.weights, strict=True):
        for row, column in plane.nonzero().tolist():
            v, u = down - (row - K // 2), right - (column - K // 2)
            grid = torch.stack([angle.cos() * u + angle.sin() * v, angle.cos() * v - angle.sin() * u], -1) / 120
            turned = F.grid_sample(x, grid[None], mode="bicubic", align_corners=False)
            y += plane[row, column] * turned
    margin = (240 - SIDE) // 2
    y = y[..., margin:-margin, margin:-margin]
    y = y + 0.004 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return Measurement(y, torch.tensor([0.004]), None, circular=False)


def mean_mnc(kernels: Tensor, truth: Tensor) -> float:
    pairs = zip(kernels[:, None], truth[:, None], strict=True)
    return float(np.mean([kernel_metrics(kernel, true).mnc for kernel, true in pairs]))


@pytest.mark.slow
def test_kernels_follow_the_camera_better_than_any_one_kernel(
    photograph: Measurement, truth: KernelField
) -> None:
    parts: list[None] = []
    field = estimate_field(photograph, K, K, lambda: parts.append(None))
    assert len(parts) == VARYING_PARTS
    true, middle = truth.on_grid(3), truth.in_window(slice(0, SIDE), slice(0, SIDE))
    assert mean_mnc(field.on_grid(3), true) > mean_mnc(middle.expand_as(true), true)
    assert field.roll == pytest.approx(truth.roll, rel=0.5)
    assert field_score(photograph, field) < field_score(photograph, field, turned=True)


def test_a_small_photograph_has_kernels_of_the_given_size_and_the_same_ones_every_time() -> None:
    y = torch.from_numpy(data.camera()[100:164, 200:264].astype(np.float32))[None, None] / 127.5 - 1
    one = Measurement(y, torch.tensor([0.01]), None, circular=False)
    first, second = (estimate_field(one, 8, 8) for _ in range(2))
    assert first.kernel_size == 7
    assert float(first.weights.min()) >= 0
    assert torch.equal(first.on_grid(3), second.on_grid(3))
    torch.testing.assert_close(first.on_grid(3).sum((1, 2, 3)), torch.ones(9))


def test_the_size_is_found_where_it_is_not_given() -> None:
    y = torch.from_numpy(data.camera()[100:164, 200:264].astype(np.float32))[None, None] / 127.5 - 1
    field = estimate_field(Measurement(y, torch.tensor([0.01]), None, circular=False), None, 19)
    assert 15 <= field.kernel_size <= 19


def test_a_constant_picture_has_finite_kernels() -> None:
    flat = Measurement(torch.zeros(1, 1, 48, 48), torch.tensor([0.01]), None, circular=False)
    assert torch.isfinite(estimate_field(flat, 7, 7).on_grid(2)).all()


def test_the_mean_roll_is_zero_so_that_the_picture_is_not_turned() -> None:
    y = torch.from_numpy(data.camera()[100:164, 200:264].astype(np.float32))[None, None] / 127.5 - 1
    field = estimate_field(Measurement(y, torch.tensor([0.01]), None, circular=False), 7, 7)
    assert float((field.weights.sum((1, 2)) * field.angles).sum()) == pytest.approx(0, abs=1e-6)
