"""Kernels from the strong gradients of true images."""

from __future__ import annotations

import pytest
import torch
from skimage import data
from torch import Tensor

import latentdem_ext as ext
from latentdem.search.gradient_refine import kernels_from_images
from latentdem.solver.measurement import Measurement

SIGMA = torch.tensor([0.004])


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """(1, 3, 144, 160) in [-1, 1]."""
    camera = torch.from_numpy(data.camera()[60:348:2, 180:500:2]).float() / 127.5 - 1
    return camera[None, None].repeat(1, 3, 1, 1)


def hook(size: int) -> Tensor:
    """(1, 1, K, K) with its centre of mass at K // 2 to the nearest pixel."""
    kernel, middle = torch.zeros(1, 1, size, size), size // 2
    kernel[..., middle - 1, middle - 2 : middle + 2] = torch.tensor([0.5, 0.7, 0.9, 1.0])
    kernel[..., middle : middle + 4, middle + 1] = torch.tensor([0.9, 0.7, 0.5, 0.3])
    return kernel / kernel.sum()


@pytest.mark.parametrize("size", [8, 9, 12])
@pytest.mark.parametrize("circular", [True, False])
@pytest.mark.parametrize("holes", [True, False])
def test_the_kernel_is_recovered_from_the_true_image(
    photograph: Tensor, size: int, circular: bool, holes: bool
) -> None:
    x, kernel, mask = photograph, hook(size), None
    y = ext.blur(x, kernel)
    if not circular:
        inside = slice(size, -size)
        x, y = x[..., inside, inside], y[..., inside, inside]
    if holes:
        mask = torch.ones(1, 1, *y.shape[-2:])
        mask[..., 30:38, 40:60] = 0
        mask[..., 70, 20] = 0
        y = torch.where(mask > 0, y, -torch.ones(()))
    estimate = kernels_from_images(Measurement(y, SIGMA, mask, circular), x, size)
    assert (estimate >= 0).all()
    torch.testing.assert_close(estimate.sum((1, 2, 3)), torch.ones(1))
    torch.testing.assert_close(estimate, kernel, rtol=0, atol=0.02 * float(kernel.max()))


@pytest.mark.parametrize("size", [8, 9])
def test_a_common_shift_of_image_and_measurement_changes_nothing(photograph: Tensor, size: int) -> None:
    y = ext.blur(photograph, hook(size))
    estimate, moved = (
        kernels_from_images(Measurement(y.roll(by, (-2, -1)), SIGMA), photograph.roll(by, (-2, -1)), size)
        for by in ((0, 0), (5, -7))
    )
    torch.testing.assert_close(estimate, moved, rtol=0, atol=1e-5)


def test_an_image_shifted_alone_gives_the_same_centred_kernel(photograph: Tensor) -> None:
    """The shift that image and kernel share is removed by centring."""
    kernel = hook(12)
    moved = photograph.roll((1, -1), (-2, -1))
    estimate = kernels_from_images(Measurement(ext.blur(photograph, kernel), SIGMA), moved, 12)
    torch.testing.assert_close(estimate, kernel, rtol=0, atol=0.02 * float(kernel.max()))


def test_hypotheses_of_a_batch_stay_with_their_photographs(photograph: Tensor) -> None:
    kernels = torch.cat([hook(9), hook(9).flip(-1)])  # both centred
    x = torch.cat([photograph, photograph.flip(-2)])
    measurement = Measurement(ext.blur(x, kernels), SIGMA.repeat(2), None, True)
    images = x.repeat_interleave(2, 0)
    images[1::2] = images[1::2] / 2
    estimates = kernels_from_images(measurement, images, 9)
    expected = kernels.repeat_interleave(2, 0)
    torch.testing.assert_close(estimates, expected, rtol=0, atol=0.02 * float(kernels.max()))
