from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem.metrics import kernel_metrics
from latentdem.operators.kernels import delta_kernel, motion_kernels
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_diffusion import kernel_of, kernel_picture
from latentdem.solver.blind_dps import BlindDPS, sparsity
from latentdem.solver.measurement import Measurement
from latentdem.solver.state import TraceStep

Scene = Callable[..., Tensor]


class Gaussian:
    """A prior of pictures whose pixels are independent and normal: its score is known."""

    def __init__(self, channels: int, mean: float, spread: float) -> None:
        self.channels, self.mean, self.spread = channels, mean, spread
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return self.channels, height, width

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        return z

    def predict_noise(self, z_t: Tensor, t: int) -> Tensor:
        abar = float(self.alphas_cumprod[t])
        return (1 - abar) ** 0.5 * (z_t - abar**0.5 * self.mean) / (abar * self.spread**2 + 1 - abar)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_sparsity_counts_the_values_above_those_of_a_uniform_kernel() -> None:
    few, many = delta_kernel(9), torch.full((1, 1, 9, 9), 1 / 81)
    assert float(sparsity(few)) == pytest.approx(1, abs=0.02)
    assert float(sparsity(many)) == pytest.approx(81 / 2)


def test_one_step_is_the_formula(scene: Scene) -> None:
    """In float64, with the gradients of all it depends on by differences."""
    y = torch.nn.functional.interpolate(scene(16, 16), (8, 8)).double()
    measurement = Measurement(y, torch.tensor([0.02]).double())
    image, blur = Gaussian(3, 0.1, 0.6), Gaussian(1, -0.8, 0.3)
    noise = seeded()
    z, u = (torch.randn(1, *shape, generator=noise, dtype=torch.float64) for shape in ((3, 8, 8), (1, 5, 5)))
    abar = float(image.alphas_cumprod[999])

    def clean(prior: Gaussian, noisy: Tensor) -> Tensor:
        return ((noisy - (1 - abar) ** 0.5 * prior.predict_noise(noisy, 999)) / abar**0.5).clamp(-1, 1)

    def loss(z: Tensor, u: Tensor) -> float:
        raw = ((clean(blur, u) + 1) / 2).clamp_min(0)
        kernel = raw / raw.sum()
        gap = y - ext.blur(clean(image, z), kernel)
        return float(gap.norm() + 0.2 * (kernel / (kernel + 1 / 25)).sum())

    def slope(of: Callable[[Tensor], float], at: Tensor) -> Tensor:
        units = torch.eye(at.numel(), dtype=torch.float64).view(-1, *at.shape) * 1e-6
        return torch.tensor([(of(at + unit) - of(at - unit)) / 2e-6 for unit in units]).view_as(at).double()

    # One step to t = -1 ends at the clean prediction, without noise.
    found = BlindDPS(0.5, 0.3, 0.2)(image, blur, measurement, 5, generator=seeded(), steps=1)
    factor = 1000 * abar**0.5
    expected_z = clean(image, z) - 0.5 * factor * 8 / 256 * slope(lambda at: loss(at, u), z)
    expected_u = clean(blur, u) - 0.3 * factor * slope(lambda at: loss(z, at), u)
    torch.testing.assert_close(found[0], expected_z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], kernel_of(expected_u), rtol=1e-4, atol=1e-5)


def test_the_kernel_is_found_with_a_prior_that_knows_the_image(scene: Scene, oracle: Any) -> None:
    sharp, kernel = scene(32, 32), motion_kernels(1, 9, 0.5, 0)
    measurement = Measurement(ext.blur(sharp, kernel), torch.tensor([0.02]))
    picture = kernel_picture(kernel)
    prior = Gaussian(1, float(picture.mean()), float(picture.std()))
    trace: list[TraceStep] = []
    image, found = BlindDPS()(
        oracle(sharp), prior, measurement, 9, generator=seeded(), steps=200, on_step=trace.append
    )
    assert kernel_metrics(found, kernel).mnc > 0.9 > kernel_metrics(trace[0].parameters, kernel).mnc
    assert float(trace[-1].residual) < 0.5 * float(trace[0].residual)
    assert (image - sharp).abs().max() < 0.02
    assert len(trace) == 200


def test_a_batch_gives_what_single_images_give(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y = torch.cat([scene(32, 32), scene(32, 32, seed=1)])
    whole = Measurement(y, torch.full((2,), 0.02))
    prior = Gaussian(1, -0.8, 0.3)
    together = BlindDPS(0.1)(tiny_prior, prior, whole, 9, generator=seeded(), steps=4)
    for i in range(2):
        alone = BlindDPS(0.1)(tiny_prior, prior, whole.rows(slice(i, i + 1)), 9, generator=seeded(), steps=4)
        for mine, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(mine[i : i + 1], theirs, rtol=1e-3, atol=1e-3)


def test_a_pixel_space_model_of_kernels_is_a_kernel_prior(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    """As BlindDPS's own network is; it pads kernels of 9 pixels to 10."""
    import diffusers

    from latentdem.priors import PixelPrior

    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = diffusers.UNet2DModel(in_channels=1, out_channels=1, **sizes, **blocks)
    measurement = Measurement(scene(32, 32), torch.tensor([0.02]))
    _, kernel = BlindDPS(0.1)(tiny_prior, PixelPrior(unet), measurement, 9, generator=seeded(), steps=2)
    assert kernel.shape == (1, 1, 9, 9)
    assert float(kernel.sum()) == pytest.approx(1)


def test_unmeasured_pixels_do_not_count(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    y, mask = scene(32, 32), torch.ones(1, 1, 32, 32)
    mask[..., :9] = 0
    results = []
    for beyond in (0.0, 0.7):
        measurement = Measurement(torch.where(mask > 0, y, beyond), torch.tensor([0.02]), mask)
        results.append(
            BlindDPS(0.1)(tiny_prior, Gaussian(1, -0.8, 0.3), measurement, 9, generator=seeded(), steps=3)
        )
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
