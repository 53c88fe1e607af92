"""Both E-steps where the posterior is known: a Gaussian prior, a linear decoder, a known blur."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import Blur, LatentDEM, Posterior, Proximal
from latentdem.operators.kernels import gaussian_kernel
from latentdem.solver.data_weight import MaximumLikelihood
from latentdem.solver.e_step import EStep

SIDE, SAMPLES, SIGMA = 24, 24, 0.05


class GaussianPrior:
    """Stationary Gaussian latents seen through a decoder that is a circular filter."""

    def __init__(self, mean: Tensor) -> None:
        rows, columns = torch.fft.fftfreq(SIDE)[:, None], torch.fft.rfftfreq(SIDE)
        square = rows**2 + columns**2
        self.mean, self.variance, self.gain = mean, 0.09 / (1 + 80 * square), 1 / (1 + 2 * square)
        self.alphas_cumprod = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        return 3, height, width

    def encode(self, x: Tensor) -> Tensor:
        return filtered(x, 1 / self.gain)

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        return filtered(z, self.gain)

    def predict_noise(self, z_t: Tensor, t: int) -> Tensor:
        a = self.alphas_cumprod[t]
        wiener = a.sqrt() * self.variance / (a * self.variance + 1 - a)
        clean = self.mean + filtered(z_t - a.sqrt() * self.mean, wiener)
        return (z_t - a.sqrt() * clean) / (1 - a).sqrt()


def filtered(x: Tensor, spectrum: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=(SIDE, SIDE))


@dataclass
class Comparison:
    """Of samples with the posterior, over frequencies that the measurement determines to the same degree.

    mean: error of the samples' mean, in standard deviations of the posterior; variance: ratio of the variances.
    """

    mean: float
    variance: float


def compare(e_step: EStep, steps: int) -> dict[str, Comparison]:
    generator = torch.Generator().manual_seed(0)
    prior = GaussianPrior(0.06 * torch.randn(1, 3, SIDE, SIDE, generator=generator))
    kernel = gaussian_kernel(7, 1.2)
    truth, noise = torch.randn(2, 1, 3, SIDE, SIDE, generator=generator)
    x = prior.decode(prior.mean + filtered(truth, prior.variance.sqrt()), SIDE, SIDE)
    y = ext.blur(x, kernel) + SIGMA * noise

    # Everything is diagonal in the Fourier domain: mean and variance of the images given y.
    system = ext.kernel_to_otf(kernel, (SIDE, SIDE))[0, 0] * prior.gain
    variance = 1 / (1 / prior.variance + system.abs().square() / SIGMA**2)
    weighted = torch.fft.rfft2(prior.mean) / prior.variance + system.conj() * torch.fft.rfft2(y) / SIGMA**2
    mean = prior.gain * variance * weighted / SIDE  # in units of the orthonormal transform below
    variance = variance * prior.gain**2

    # As hypotheses, because the solver returns the mean of posterior samples.
    found, _ = LatentDEM(prior, Blur(7, fixed=True), e_step, hypotheses=SAMPLES)(
        y.repeat(SAMPLES, 1, 1, 1),
        kernel.repeat(SAMPLES, 1, 1, 1),
        torch.full((SAMPLES,), SIGMA),
        generator=generator,
        steps=steps,
    )
    spectra = torch.fft.rfft2(found, norm="ortho")
    error = (spectra.mean(0) - mean).abs().square().mean((0, 1))
    spread = spectra.var(0).mean(0)
    determined = prior.variance * system.abs().square() / SIGMA**2
    bands = {
        "determined": determined > 10,
        "between": (determined > 1) & (determined <= 10),
        "free": determined <= 1,
    }
    return {
        name: Comparison(
            float((error[band] / variance[band]).mean().sqrt()),
            float(spread[band].sum() / variance[band].sum()),
        )
        for name, band in bands.items()
    }


MOST_LIKELY = Proximal(MaximumLikelihood())


@pytest.mark.parametrize(
    ("e_step", "steps", "errors", "ratios"),
    [
        (MOST_LIKELY, 50, (0.25, 0.25, 0.25), [(0.15, 0.4), (0.15, 0.4), (0.15, 0.3)]),
        pytest.param(
            MOST_LIKELY, 1000, (0.4, 0.4, 0.25), [(0.6, 1), (0.5, 0.8), (0.35, 0.55)], marks=pytest.mark.slow
        ),
        (Posterior(), 50, (2.0, 2.0, 0.4), [(2, 6), (1.3, 2.5), (0.25, 0.5)]),
        pytest.param(
            Posterior(), 1000, (0.4, 1.0, 0.4), [(0, 0.01), (0, 0.2), (0.7, 0.95)], marks=pytest.mark.slow
        ),
    ],
    ids=["proximal-50", "proximal-1000", "posterior-50", "posterior-1000"],
)
def test_samples_have_the_documented_bias(e_step, steps, errors, ratios):
    """Within these bounds of the posterior: docs/research/deblurring.md, "Against a closed form"."""
    found = compare(e_step, steps)
    for comparison, error, (least, most) in zip(found.values(), errors, ratios, strict=True):
        assert comparison.mean < error
        assert least <= comparison.variance <= most
