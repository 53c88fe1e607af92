from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem.errors import UserError
from latentdem.operators.blur import HQS, Blur, Denoiser
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.priors import LatentPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from latentdem.priors.kernel_diffusion import (
    SCHEDULE,
    SHIPPED,
    DenoiserPrior,
    KernelDiffusion,
    kernel_of,
    kernel_picture,
)
from latentdem.priors.parametrization import Parametrization
from latentdem.priors.unet import UNet
from latentdem_ext import project_kernel


@pytest.fixture(scope="module")
def shipped() -> KernelDiffusion:
    return KernelDiffusion.from_pretrained()


def noise_error(prior: LatentPrior, picture: Tensor, t: int) -> float:
    """Mean square of the error of the predicted noise, which itself has 1."""
    clean, abar = prior.encode(picture), float(prior.alphas_cumprod[t])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    predicted = prior.predict_noise(abar**0.5 * clean + (1 - abar) ** 0.5 * noise, t)
    return float((predicted - noise).square().mean())


def test_pictures_and_kernels() -> None:
    kernel = motion_kernels(3, 13, 0.5, 0)
    picture = kernel_picture(kernel)
    assert picture.amin() >= -1
    torch.testing.assert_close(picture.amax((1, 2, 3)), torch.ones(3))
    torch.testing.assert_close(kernel_of(picture), kernel)
    outside = kernel_of(picture - 0.5)
    assert outside.min() == 0
    torch.testing.assert_close(outside.sum((1, 2, 3)), torch.ones(3))


def test_the_padding_is_black_and_cut_off_again() -> None:
    prior = KernelDiffusion(UNet(1, 1, (8, 8, 8), 1, 4), Parametrization.from_config(SCHEDULE))
    picture = kernel_picture(motion_kernels(2, 13, 0.5, 0))
    z = prior.encode(picture)
    assert z.shape == (2, *prior.latent_shape(13, 13)) == (2, 1, 16, 16)
    assert (z[..., 13:, :] == -1).all()
    assert (z[..., 13:] == -1).all()
    assert torch.equal(prior.decode(z, 13, 13), picture)
    assert prior.predict_noise(z, 500).shape == z.shape


def test_tweedie_takes_the_denoiser_for_a_score() -> None:
    """The clean picture that follows from the predicted noise is the denoised kernel."""
    denoiser = KernelDenoiser(3, 4)
    prior = DenoiserPrior(denoiser)
    t = 150
    abar = float(prior.alphas_cumprod[t])
    picture = kernel_picture(motion_kernels(2, 13, 0.5, 0))
    z = abar**0.5 * picture + (1 - abar) ** 0.5 * torch.randn(picture.shape)
    clean = (z - (1 - abar) ** 0.5 * prior.predict_noise(z, t)) / abar**0.5
    noisy = (z / abar**0.5 + 1) / 2
    level = 0.5 * ((1 - abar) / abar) ** 0.5
    expected = denoiser.denoise(noisy, level / noisy.amax((1, 2, 3)))
    torch.testing.assert_close((clean + 1) / 2, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [17, 33, 64])
def test_shipped_weights_predict_noise_better_than_the_denoiser(shipped: KernelDiffusion, size: int) -> None:
    picture = kernel_picture(motion_kernels(8, size, 0.5, seed=10**6))
    denoiser = DenoiserPrior(load_kernel_denoiser())
    for t in (200, 500, 800):
        assert noise_error(shipped, picture, t) < 0.5 * noise_error(denoiser, picture, t)


def test_shipped_weights_are_small() -> None:
    assert sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file()) < 300_000


@pytest.mark.parametrize("kind", ["diffusion", "denoiser"])
def test_gradients_reach_the_noisy_picture(shipped: KernelDiffusion, kind: str) -> None:
    prior: LatentPrior = shipped if kind == "diffusion" else DenoiserPrior(load_kernel_denoiser())
    z = torch.randn(1, *prior.latent_shape(13, 13)).requires_grad_()
    (gradient,) = torch.autograd.grad(prior.predict_noise(z, 300).square().sum(), z)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


class GaussianUNet(UNet):
    """The posterior mean where the pixels of clean pictures are normal and independent."""

    mean, deviation = -0.7, 0.3

    def __init__(self, parametrization: Parametrization) -> None:
        super().__init__(1, 1, (8, 8, 8), 1, 4)
        self.alphas_cumprod, self.prediction = parametrization.alphas_cumprod, parametrization.prediction

    def forward(self, x: Tensor, t: Tensor | int) -> Tensor:
        """What the network would predict after perfect training."""
        assert isinstance(t, Tensor)
        abar = self.alphas_cumprod.double()[t].view(-1, 1, 1, 1)
        signal, noise = abar.sqrt(), (1 - abar).sqrt()
        gain = signal * self.deviation**2 / (abar * self.deviation**2 + 1 - abar)
        clean = self.mean + gain * (x - signal * self.mean)
        predicted = (x - signal * clean) / noise
        if self.prediction == "sample":
            return clean
        return predicted if self.prediction == "epsilon" else signal * predicted - noise * clean


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_denoised_kernels_are_posterior_means(prediction: str) -> None:
    """Those of a normal distribution, at levels of timesteps and between them, each sample with its own."""
    parametrization = Parametrization.from_config(SCHEDULE | {"prediction_type": prediction})
    prior = KernelDiffusion(GaussianUNet(parametrization), parametrization)
    abar = parametrization.alphas_cumprod.double()[torch.tensor([0, 9, 26, 80, 500])]
    exact = 0.5 * (1 / abar - 1).sqrt()
    generator = torch.Generator().manual_seed(0)
    kernel = torch.rand(5, 1, 13, 13, generator=generator, dtype=torch.float64)
    peak = kernel.amax((1, 2, 3), keepdim=True)
    # A kernel of peak 1 has mean (1 - 0.7) / 2 and half the deviation of its picture.
    mean, variance = 0.15, 0.15**2
    for factor, tolerance in ((1.0, 1e-6), (1.02, 0.03)):
        level = factor * exact
        noise = level.square().view(-1, 1, 1, 1)
        expected = peak * (variance * kernel / peak + noise * mean) / (variance + noise)
        denoised = prior.denoise(kernel, level)
        assert denoised.dtype == torch.float64
        assert (denoised - expected).abs().max() < tolerance
        change = (expected - kernel).flatten(1).norm(dim=1)
        assert ((denoised - expected).flatten(1).norm(dim=1) < max(tolerance, 1e-3) * change).all()


def noisy_kernels(size: int, level: float) -> tuple[Tensor, Tensor]:
    """Kernels (8, 1, size, size) with noise of `level` in units of each clean peak, and without."""
    clean = motion_kernels(8, size, 0.5, seed=77)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return clean + level * clean.amax((1, 2, 3), keepdim=True) * noise, clean


# Measured: 0.26 to 0.31, 0.17 to 0.20, 0.14 to 0.17.
@pytest.mark.parametrize(("size", "remaining"), [(17, 0.35), (33, 0.25), (64, 0.2)])
@pytest.mark.parametrize("level", [0.02, 0.05, 0.1])
def test_shipped_weights_remove_noise(
    shipped: KernelDiffusion, size: int, remaining: float, level: float
) -> None:
    noisy, clean = noisy_kernels(size, level)
    error = (shipped.denoise(noisy, level) - clean).square().mean().sqrt()
    assert error < remaining * (noisy - clean).square().mean().sqrt()


def test_denoising_without_noise_changes_nothing(shipped: KernelDiffusion) -> None:
    clean = motion_kernels(3, 17, 0.5, seed=3)
    torch.testing.assert_close(shipped.denoise(clean, 0.0), clean)
    changes = [(shipped.denoise(clean, level) - clean).abs().max() for level in (1e-5, 1e-4, 1e-3)]
    assert changes[0] < 1e-4 * clean.max()
    assert changes[0] < changes[1] < changes[2]


def test_scale_does_not_matter_and_samples_are_independent(shipped: KernelDiffusion) -> None:
    noisy, _ = noisy_kernels(21, 0.05)
    scales = torch.logspace(-3, 3, 8).view(-1, 1, 1, 1)
    levels = torch.linspace(0.01, 0.1, 8)
    together = shipped.denoise(scales * noisy, levels)
    for i in range(8):
        alone = scales[i] * shipped.denoise(noisy[i : i + 1], float(levels[i]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6 * float(scales[i]))


def test_a_kernel_of_any_size_is_denoised_in_a_black_frame(shipped: KernelDiffusion) -> None:
    noisy, _ = noisy_kernels(13, 0.05)
    framed = shipped.denoise(F.pad(noisy, (0, 3, 0, 3)), 0.05)
    assert torch.equal(shipped.denoise(noisy, 0.05), framed[..., :13, :13])


def test_kernels_without_a_positive_value_come_back_as_zeros(shipped: KernelDiffusion) -> None:
    denoised = shipped.denoise(torch.stack([torch.zeros(1, 9, 9), -torch.ones(1, 9, 9)]), 0.05)
    assert torch.equal(denoised, torch.zeros(2, 1, 9, 9))


def test_m_steps_take_it_for_a_denoiser(shipped: KernelDiffusion) -> None:
    assert isinstance(shipped, Denoiser)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y, hqs = Blur(9)(x, motion_kernels(2, 9, 0.5, 0)), HQS(1, 1e4, noise_level=torch.tensor([0.02, 0.1]))
    first, variance = gaussian_kernel(9, 2.0).repeat(2, 1, 1, 1), torch.full((2,), 4e-4)
    plain = Blur(9, None, hqs).m_step(x[:, None], y, first, variance)
    denoised = project_kernel(shipped.denoise(plain, torch.tensor([0.02, 0.1])))
    assert torch.equal(Blur(9, shipped, hqs).m_step(x[:, None], y, first, variance), denoised)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No diffusion prior of kernels at .*train_kernel_diffusion"):
        KernelDiffusion.from_pretrained(tmp_path)
