from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentdem.errors import UserError
from latentdem.operators.kernels import motion_kernels
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


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No diffusion prior of kernels at .*train_kernel_diffusion"):
        KernelDiffusion.from_pretrained(tmp_path)
