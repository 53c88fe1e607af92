"""The embedded view-conditioned prior with tiny random networks."""

from __future__ import annotations

import pytest
import torch

from latentdem.errors import UserError
from latentdem.three_d.priors.embedded import EmbeddedViewPrior
from latentdem.three_d.priors.network import gaussian_v

from ..tiny_priors import SCHEDULER, check_pose_gradient, in_double_precision, inputs, tiny


def test_embedded_prior_is_differentiable_in_the_pose():
    prior = in_double_precision(tiny(guidance=3.0))
    x, z_t, pose = inputs(prior, dtype=torch.float64)
    check_pose_gradient(prior, z_t, prior.condition(x), pose, 300)


def test_output_is_v():
    """noise = sqrt(abar) v + sqrt(1 - abar) z_t (Salimans and Ho 2022)."""
    prior = tiny()
    x, z_t, pose = inputs(prior)
    condition = prior.condition(x)
    posed, abar = prior.posed(condition, pose), SCHEDULER.alphas_cumprod[700]
    v = prior.network.denoise(z_t, 700, posed.parts[0], abar)
    noise = prior.predict_noise(z_t, 700, posed)
    torch.testing.assert_close(noise, abar.sqrt() * v + (1 - abar).sqrt() * z_t)


@pytest.mark.parametrize("t", [0, 400, 999])
def test_gaussian_latents_are_predicted_exactly(t):
    """Against the mean of samples of z0, weighted by the likelihood of z_t (Bayes' rule), pixel by pixel."""
    generator = torch.Generator().manual_seed(0)
    mean, z_t = (torch.randn(2, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    log_variance = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64) - 1
    abar = SCHEDULER.alphas_cumprod[t].double()
    deviation = (log_variance / 2).exp()[:, None]
    z_t = abar.sqrt() * (mean + 0.5 * deviation) + (1 - abar).sqrt() * z_t
    line = torch.linspace(-9, 9, 200_001, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    z0 = mean + deviation * line
    weights = torch.softmax(-(line**2) / 2 - (z_t - abar.sqrt() * z0) ** 2 / (2 * (1 - abar)), 0)
    expected = (weights * (abar.sqrt() * z_t - z0)).sum(0) / (1 - abar).sqrt()
    torch.testing.assert_close(gaussian_v(z_t, mean, log_variance, abar), expected, rtol=1e-5, atol=1e-6)


def test_guidance_leads_away_from_the_prediction_without_a_view():
    x, z_t, pose = inputs(tiny())
    plain, strong = tiny(), tiny(guidance=2.0)
    condition = plain.condition(x)
    nothing = type(condition)(tuple(torch.zeros_like(part) for part in condition.parts), condition.polar)
    known = plain.predict_noise(z_t, 500, plain.posed(condition, pose))
    unknown = plain.predict_noise(z_t, 500, plain.posed(nothing, pose))
    assert not torch.allclose(known, unknown)
    guided = strong.predict_noise(z_t, 500, strong.posed(condition, pose))
    torch.testing.assert_close(guided, 2 * known - unknown, atol=1e-5, rtol=1e-4)


def test_other_sizes_are_refused():
    with pytest.raises(UserError, match=r"takes images of the shape \(B, 3, 32, 32\)"):
        tiny().encode(torch.zeros(1, 3, 64, 64))


def test_folder_without_a_prior_is_refused(tmp_path):
    with pytest.raises(UserError, match="the folder 'autoencoder' is missing"):
        EmbeddedViewPrior.from_pretrained(tmp_path)
