from __future__ import annotations

import pytest
import torch
from skimage import data
from torch import Tensor

from latentdem.operators.kernels import motion_kernels
from latentdem.restoration.noise import estimate_noise_sigma

ROUNDING = 2 / 255 / 12**0.5  # standard deviation of rounding to 8 bits


def astronaut() -> Tensor:
    """(1, 3, 256, 256) in [-1, 1]: a textured photograph with clipped bright and dark parts."""
    image = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None] / 127.5 - 1
    return torch.nn.functional.avg_pool2d(image, 2)


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Circular convolution; where its origin lies does not matter here."""
    size = x.shape[-2:]
    return torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(kernel, s=size), s=size)


def add_noise(x: Tensor, sigma: float, seed: int = 0) -> Tensor:
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def eight_bits(x: Tensor) -> Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


# Measured ratios of estimate and truth: 0.98 to 1.02 (K = 64) and 0.97 to 1.1 (K = 9).
@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1])
@pytest.mark.parametrize(("size", "tolerance"), [(64, 0.05), (9, 0.15)])
def test_blurred_photograph(sigma: float, size: int, tolerance: float) -> None:
    y = add_noise(blur(astronaut(), motion_kernels(1, size, 0.5, seed=1)), sigma)
    assert float(estimate_noise_sigma(y)) == pytest.approx(sigma, rel=tolerance)


@pytest.mark.parametrize("sigma", [0.005, 0.02])
def test_rounding_to_eight_bits_counts_as_noise(sigma: float) -> None:
    y = eight_bits(add_noise(blur(astronaut(), motion_kernels(1, 64, 0.5, seed=1)), sigma))
    assert float(estimate_noise_sigma(y)) == pytest.approx((sigma**2 + ROUNDING**2) ** 0.5, rel=0.05)


def test_clipped_areas_do_not_lower_the_estimate() -> None:
    x = blur(astronaut(), motion_kernels(1, 64, 0.5, seed=1))
    x[..., :128] = 1.5  # half of the frame is overexposed
    x[..., :64, :] = -1.5
    assert float(estimate_noise_sigma(eight_bits(add_noise(x, 0.05)))) == pytest.approx(0.05, rel=0.06)


def test_each_sample_on_its_own() -> None:
    x = blur(astronaut(), motion_kernels(1, 33, 0.5, seed=4))
    levels = (0.01, 0.03, 0.06)
    samples = torch.cat([add_noise(x, sigma, seed=i) for i, sigma in enumerate(levels)])
    together = estimate_noise_sigma(samples)
    assert together.shape == (3,)
    assert together.dtype == torch.float32
    for i, sigma in enumerate(levels):
        torch.testing.assert_close(together[i : i + 1], estimate_noise_sigma(samples[i : i + 1]))
        assert float(together[i]) == pytest.approx(sigma, rel=0.05)


def test_texture_alone_is_mostly_not_noise() -> None:
    """A sharp photograph without added noise, with the noise of its camera and its texture."""
    assert float(estimate_noise_sigma(astronaut())) < 0.03


@pytest.mark.parametrize("shape", [(1, 100, 37), (3, 64, 200), (1, 32, 32), (3, 530, 300)])
def test_any_shape(shape: tuple[int, int, int]) -> None:
    y = 0.1 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(3))
    assert float(estimate_noise_sigma(y)) == pytest.approx(0.1, rel=0.12)


@pytest.mark.parametrize("value", [-1.0, 0.2, 1.0])
def test_a_constant_image_has_the_noise_of_rounding(value: float) -> None:
    sigma = estimate_noise_sigma(torch.full((1, 3, 70, 50), value))
    assert float(sigma) == pytest.approx(ROUNDING)
