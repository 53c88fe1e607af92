from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from latentdem.errors import UserError
from latentdem.operators.kernels import delta_kernel, gaussian_kernel, motion_kernel, motion_kernels


def centre(kernels: Tensor) -> Tensor:
    """Centres of mass (N, 2) of kernels (N, 1, K, K), relative to index K // 2."""
    axis = torch.arange(kernels.shape[-1], dtype=torch.float32) - kernels.shape[-1] // 2
    return torch.stack([kernels[:, 0].sum(2) @ axis, kernels[:, 0].sum(1) @ axis], dim=1)


def spread(kernels: Tensor) -> Tensor:
    """Standard deviations (N, 2) in pixels along the short and the long axis of each kernel."""
    axis = torch.arange(kernels.shape[-1], dtype=torch.float32)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
    weights = kernels.flatten(1)
    offset = points - (weights @ points.T)[:, :, None]
    covariance = torch.einsum("nam,nm,nbm->nab", offset, weights, offset)
    return torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt()


@pytest.mark.parametrize("size", [3, 4, 9, 16, 33, 64, 129])
@pytest.mark.parametrize("intensity", [0.0, 0.5, 1.0])
def test_motion_kernels_are_kernels(size: int, intensity: float) -> None:
    kernels = motion_kernels(4, size, intensity, seed=1)
    assert kernels.shape == (4, 1, size, size)
    assert kernels.dtype == torch.float32
    assert kernels.min() >= 0
    torch.testing.assert_close(kernels.sum(dim=(1, 2, 3)), torch.ones(4))
    # Half a pixel where the whole path is inside the frame, a little more where the frame cuts it.
    assert centre(kernels).abs().max() < 1


def test_motion_kernels_depend_on_seed_and_index_alone() -> None:
    three = motion_kernels(3, 17, 0.5, seed=5)
    assert torch.equal(three, motion_kernels(5, 17, 0.5, seed=5)[:3])
    assert not torch.equal(three, motion_kernels(3, 17, 0.5, seed=6))
    assert not torch.equal(three[0], three[1])


def test_motion_kernel_uses_the_given_generator() -> None:
    generator = np.random.default_rng(3)
    first, second = (motion_kernel(17, 0.5, generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, motion_kernel(17, 0.5, np.random.default_rng(3)))


def test_statistics_of_the_evaluation_protocol() -> None:
    """Medians over 400 kernels of the field's generator: peak 0.019, energy 0.0122, axes 11.2 and 0.95."""
    kernels = motion_kernels(100, 64, 0.5, seed=0)
    assert kernels.amax(dim=(1, 2, 3)).median() == pytest.approx(0.019, rel=0.2)
    assert kernels.square().sum(dim=(1, 2, 3)).median() == pytest.approx(0.0122, rel=0.2)
    short, long = spread(kernels).median(dim=0).values
    assert long == pytest.approx(11.2, rel=0.2)
    assert short == pytest.approx(0.95, rel=0.2)


def test_without_intensity_the_motion_is_straight() -> None:
    straight, curved = (spread(motion_kernels(30, 64, i, seed=2))[:, 0] for i in (0.0, 0.8))
    assert straight.max() < 0.7
    assert curved.median() > 1


def test_steps_do_not_depend_on_how_they_are_drawn() -> None:
    """The inverted truncated distribution against the field's way, redrawing steps longer than the path."""
    from latentdem.operators.kernels import _steps

    ours = [len(_steps(181.0, 0.5, np.random.default_rng(i))) for i in range(2000)]
    generator = np.random.default_rng(0)
    theirs = []
    for _ in range(2000):
        length = 0.75 * 181 * (generator.uniform() + generator.uniform(0, 0.25))
        total, count = 0.0, 0
        while total < length:
            step = generator.beta(1, 30) * 0.6 * 181
            if step < length:
                total, count = total + step, count + 1
        theirs.append(count)
    # Standard error of each mean is 0.3.
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=1.5)
    assert np.percentile(ours, [10, 50, 90]) == pytest.approx(np.percentile(theirs, [10, 50, 90]), abs=2.5)


@pytest.mark.parametrize("size", [3, 8, 33])
def test_delta_kernel_is_one_at_the_origin(size: int) -> None:
    kernel = delta_kernel(size)
    assert kernel.shape == (1, 1, size, size)
    assert kernel[0, 0, size // 2, size // 2] == 1
    assert kernel.sum() == 1


@pytest.mark.parametrize("size", [32, 33])
def test_gaussian_kernel_has_its_standard_deviation_and_origin(size: int) -> None:
    kernel = gaussian_kernel(size, 3.0)
    assert kernel.dtype == torch.float32
    torch.testing.assert_close(kernel.sum(), torch.tensor(1.0))
    torch.testing.assert_close(centre(kernel), torch.zeros(1, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(spread(kernel), torch.full((1, 2), 3.0), atol=1e-2, rtol=0)


def test_bad_arguments_are_named() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(UserError, match="kernel size"):
        motion_kernel(2, 0.5, generator)
    with pytest.raises(UserError, match="kernel size"):
        delta_kernel(0)
    with pytest.raises(UserError, match="intensity"):
        motion_kernel(33, 1.5, generator)
    with pytest.raises(UserError, match="standard deviation"):
        gaussian_kernel(9, 0.0)
