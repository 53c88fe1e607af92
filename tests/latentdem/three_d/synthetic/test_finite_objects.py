"""The exact prior of finitely many objects."""

from __future__ import annotations

import torch

from ..tiny_priors import check_pose_gradient, finite, inputs


def test_finite_prior_is_differentiable_in_the_pose():
    prior = finite()
    x = prior.view(torch.tensor([0, 2]), prior.cameras[[1, 4]])
    _, z_t, pose = inputs(prior, dtype=torch.float64)
    check_pose_gradient(prior, z_t, prior.condition(x), pose, 300)


def test_finite_prior_is_the_posterior_mean():
    """Against the same mean by sampling: z0 from the prior, weighted by the likelihood of z_t (Bayes' rule)."""
    prior = finite(cameras=2)
    prior.spread, prior.tolerance = 0.3, 5.0
    x = prior.view(torch.tensor([0]), prior.cameras[:1])
    condition = prior.condition(x)
    pose, t = torch.tensor([[0.1, 0.4, 0.0]], dtype=torch.float64), 980
    abar = prior.alphas_cumprod[t]
    _, z_t, _ = inputs(prior, 1, torch.float64)
    noise = prior.predict_noise(z_t, t, prior.posed(condition, pose))
    clean = (z_t - (1 - abar).sqrt() * noise) / abar.sqrt()

    generator = torch.Generator().manual_seed(3)
    index, camera = prior._pairs()
    views = prior.view(index, camera + pose)
    chosen = torch.multinomial(condition.parts[0][0].exp(), 5000, replacement=True, generator=generator)
    z0 = views[chosen] + 0.3 * torch.randn(5000, *views.shape[1:], generator=generator, dtype=torch.float64)
    weights = torch.softmax(-(z_t - abar.sqrt() * z0).square().sum((1, 2, 3)) / (2 * (1 - abar)), 0)
    sampled = torch.einsum("k,kchw->chw", weights, z0)
    assert (sampled - clean[0]).square().mean().sqrt() < 0.03


def test_finite_prior_knows_the_object_and_its_camera():
    """Without noise the prediction leads to the true view from the target camera."""
    prior = finite()
    pose = torch.tensor([[0.2, 0.7, 0.1]], dtype=torch.float64)
    for name, camera in ((0, 3), (2, 6)):
        index, known = torch.tensor([name]), prior.cameras[[camera]]
        truth = prior.view(index, known + pose)
        z_t = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        t = 900
        condition = prior.condition(prior.view(index, known))
        noise = prior.predict_noise(z_t, t, prior.posed(condition, pose))
        abar = prior.alphas_cumprod[t]
        clean = (z_t - (1 - abar).sqrt() * noise) / abar.sqrt()
        assert (clean - truth).abs().max() < 0.05


def test_finite_views_differ_front_and_back():
    prior = finite()
    front, back = prior.view(torch.tensor([0, 0]), prior.cameras[[0, 4]])
    assert (front - back.flip(-1)).abs().max() > 0.2
