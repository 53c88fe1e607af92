"""View-conditioned priors: the embedded one with tiny random networks, and the exact one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.attention_processor import Attention

from latentdem.errors import UserError
from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.parametrization import Parametrization
from latentdem.three_d.cameras import POLAR_RANGE
from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.pose_search.noise_error import ASIDE, HEIGHT, Draw, PairError
from latentdem.three_d.pose_search.search import PoseSearch
from latentdem.three_d.priors.base import ViewCondition, ViewPrior
from latentdem.three_d.priors.embedded import EmbeddedViewPrior
from latentdem.three_d.priors.framing import Framing
from latentdem.three_d.priors.network import ViewNetwork, gaussian_v
from latentdem.three_d.synthetic.finite_objects import FiniteObjectsPrior

SCHEDULER = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
)


def tiny(guidance: float = 1.0, framing: Framing | None = None) -> EmbeddedViewPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ViewNetwork(latent_size=8, widths=(16, 32), volume_features=4, flattened=16, rendered=16)
        autoencoder = EmbeddedAutoencoder(widths=(8, 16))
    return EmbeddedViewPrior(autoencoder, network, Parametrization.of(SCHEDULER), guidance, framing=framing)


def finite(cameras: int = 8) -> FiniteObjectsPrior:
    generator = torch.Generator().manual_seed(0)
    points = 0.35 * torch.randn(3, 12, 3, generator=generator, dtype=torch.float64)
    colours = 2 * torch.rand(3, 12, 3, generator=generator, dtype=torch.float64) - 1
    azimuth = torch.arange(cameras, dtype=torch.float64) * 2 * math.pi / cameras
    grid = torch.stack([torch.full_like(azimuth, 1.2), azimuth, torch.full_like(azimuth, 1.6)], 1)
    return FiniteObjectsPrior(points, colours, grid, SCHEDULER.alphas_cumprod.double(), image_size=12)


def inputs(prior, batch: int = 2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    size = prior.image_size
    x = torch.rand(batch, 3, size, size, generator=generator, dtype=dtype) * 2 - 1
    z_t = torch.randn(batch, *prior.latent_shape, generator=generator, dtype=dtype)
    pose = torch.randn(batch, 3, generator=generator, dtype=dtype) * 0.5
    return x, z_t, pose


@pytest.mark.parametrize("prior", [tiny(), finite()], ids=["embedded", "finite"])
def test_members_and_shapes(prior):
    assert isinstance(prior, ViewPrior)
    x, z_t, pose = inputs(
        prior, dtype=torch.float64 if isinstance(prior, FiniteObjectsPrior) else torch.float32
    )
    z = prior.encode(x)
    assert z.shape == (2, *prior.latent_shape)
    assert prior.decode(z).shape == x.shape
    condition = prior.condition(x)
    assert len(condition) == 2
    noise = prior.predict_noise(z_t, 500, prior.posed(condition, pose))
    assert noise.shape == z_t.shape
    variance = prior.posed(condition, pose).variance
    assert variance.shape[:2] == (2, 1)
    assert torch.broadcast_shapes(variance.shape, z.shape) == z.shape
    assert (variance > 0).all()
    # Rows do not mix, whatever their order.
    swapped = torch.tensor([1, 0])
    again = prior.predict_noise(z_t[swapped], 500, prior.posed(condition[swapped], pose[swapped]))
    torch.testing.assert_close(again[swapped], noise, atol=2e-5, rtol=1e-4)


def check_pose_gradient(prior, z_t, condition, pose, t):
    direction = torch.ones_like(pose) / 2

    def value(pose):
        return prior.predict_noise(z_t, t, prior.posed(condition, pose)).square().sum()

    moved = pose.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(moved), moved)
    step = 1e-7  # a resampled volume has kinks
    numeric = (value(pose + step * direction) - value(pose - step * direction)) / (2 * step)
    assert float(numeric) != 0
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-9)


def test_embedded_prior_is_differentiable_in_the_pose():
    prior = tiny(guidance=3.0)
    prior.network.double()
    for module in prior.network.modules():
        if isinstance(module, Attention):
            module.upcast_softmax = False  # to float32, that is
    prior.autoencoder.double()
    x, z_t, pose = inputs(prior, dtype=torch.float64)
    check_pose_gradient(prior, z_t, prior.condition(x), pose, 300)


def test_finite_prior_is_differentiable_in_the_pose():
    prior = finite()
    x = prior.view(torch.tensor([0, 2]), prior.cameras[[1, 4]])
    _, z_t, pose = inputs(prior, dtype=torch.float64)
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


def test_cameras_agree_with_the_estimated_polar_angles():
    poses = torch.tensor([[0.0, 0.0, 0.0], [0.1, 2.0, 0.0]])
    condition = ViewCondition((torch.zeros(3, 1),), torch.tensor([1.0, 9.0, 1.3]))
    cameras = condition.cameras(poses, torch.tensor([0, 2]))
    torch.testing.assert_close(cameras, torch.tensor([[1.1, 0.0, 0.0], [1.2, 2.0, 0.0]]))
    moved = condition.at(F.pad(torch.tensor([[1.0], [1.1], [1.2]]), (0, 2)))[torch.tensor([2, 0])]
    torch.testing.assert_close(moved.polar, torch.tensor([1.2, 1.0]))
    blank = ViewCondition((torch.zeros(3, 1),))
    assert torch.equal(blank.cameras(poses, torch.tensor([0, 2])), poses)
    assert blank.at(torch.ones(3, 3)).polar is None


def test_cameras_of_crops_have_principal_points():
    poses = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0], [0.1, 2.0, 0.0, 0.02, -0.06]])
    condition = ViewCondition((torch.zeros(2, 1),), torch.tensor([1.0, 1.1]))
    crops, both = condition.cropped(), torch.arange(2)
    cameras = crops.cameras(poses, both)
    torch.testing.assert_close(
        cameras, torch.tensor([[1.0, 0.0, 0.0, -0.01, 0.03], [1.1, 2.0, 0.0, 0.01, -0.03]])
    )
    torch.testing.assert_close(crops.cameras(poses[:, :3], both), F.pad(cameras[:, :3], (0, 2)))
    torch.testing.assert_close(crops.at(cameras)[torch.tensor([1])].principal, cameras[1:, 3:])
    assert condition.at(cameras[:, :3]).principal is None
    blank = ViewCondition((torch.zeros(2, 1),))
    assert blank.cropped() is blank


def test_principal_points_off_their_estimate_cost():
    prior = tiny()
    x, _, _ = inputs(prior)
    condition, pair = prior.condition(x).cropped(), (torch.tensor([0]), torch.tensor([1]))
    cameras = torch.tensor([[[1.2, 0.0, 0.0, 0.01, 0.0], [1.3, 0.8, 0.05, 0.0, -0.02]]])
    draws = PairError(prior, condition, prior.encode(x)).draws(2, torch.Generator().manual_seed(0))
    errors = [
        PairError(prior, each, prior.encode(x))(*pair, cameras, draws)
        for each in (replace(condition, principal=cameras[0, :, 3:]), condition)
    ]
    expected = torch.full((2, 1), (0.01**2 + 0.02**2) / ASIDE**2)
    torch.testing.assert_close(errors[1] - errors[0], expected, rtol=1e-2, atol=1e-4)


def test_search_moves_the_height_with_the_embedded_prior():
    prior = tiny()
    x, _, _ = inputs(prior)
    condition = prior.condition(x)
    error = PairError(prior, condition, prior.encode(x))
    recipe = ReconstructionConfig(refinements=3, hypotheses=2)
    search = PoseSearch(error, recipe, torch.Generator().manual_seed(0))
    start = condition.cameras(torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.7, 0.0]]]), torch.tensor([0, 1]))
    moved = search.refine(start, torch.arange(2), recipe.refinements)
    assert (moved[0, :, 0] != start[0, :, 0]).all()
    assert not moved[0, 0, 1:].any()
    beliefs, _ = search()
    cameras = beliefs.cameras[0]
    low, high = POLAR_RANGE
    assert cameras.shape == (2, 3)
    assert low <= float(cameras[0, 0]) <= high


def test_gradient_of_the_error_in_both_cameras():
    prior = tiny()
    prior.network.double()
    prior.autoencoder.double()
    for module in prior.network.modules():
        if isinstance(module, Attention):
            module.upcast_softmax = False
    x, _, _ = inputs(prior, dtype=torch.float64)
    error = PairError(prior, prior.condition(x), prior.encode(x))
    draws = error.draws(1, torch.Generator().manual_seed(0))
    pair = torch.tensor([0]), torch.tensor([1])
    cameras = torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.05]]], dtype=torch.float64)
    direction = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-7
    ahead, behind = (error(*pair, cameras + sign * step * direction, draws) for sign in (1, -1))
    slope = (error.gradient(*pair, cameras, draws[0]) * direction).sum()
    torch.testing.assert_close(slope, ((ahead - behind) / (2 * step))[0, 0], rtol=1e-4, atol=1e-7)


def test_expected_error_is_the_mean_over_noises():
    """Of an untrained network, which predicts what the mean and the variance say alone, at many noises."""
    prior = tiny()
    x, _, _ = inputs(prior)
    error = PairError(prior, prior.condition(x), prior.encode(x))
    pair, cameras = (torch.tensor([0]), torch.tensor([1])), torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]]])
    generator = torch.Generator().manual_seed(0)
    for t in (250, 600, 850):
        draws = [Draw(t, torch.randn(error.latents.shape, generator=generator)) for _ in range(300)]
        sampled = error(*pair, cameras, draws)
        expected = error(*pair, cameras, [Draw(t, None)])[0]
        deviation = sampled.std(0) / len(draws) ** 0.5
        assert deviation < 0.02 * expected
        assert (sampled.mean(0) - expected).abs() < 4 * deviation


def test_only_priors_that_foretell_views_do_without_noise():
    generator = torch.Generator()
    for prior, without in ((tiny(), True), (finite(), False)):
        error = PairError(
            prior, prior.condition(torch.ones(2, 3, prior.image_size, prior.image_size)), torch.ones(2, 1)
        )
        assert [draw.noise is None for draw in error.draws(2, generator, rough=True)] == [without] * 2
        assert all(draw.noise is not None for draw in error.draws(2, generator))


def test_heights_that_the_prior_does_not_believe_cost():
    prior = tiny()
    x, _, _ = inputs(prior)
    condition = prior.condition(x)
    cameras = torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]]])
    errors = []
    for estimate in (torch.tensor([1.2, 1.3]), torch.tensor([1.0, 1.4])):
        error = PairError(prior, condition.at(F.pad(estimate[:, None], (0, 2))), prior.encode(x))
        draws = error.draws(2, torch.Generator().manual_seed(0))
        errors.append(error(torch.tensor([0]), torch.tensor([1]), cameras, draws))
    expected = torch.full((2, 1), (0.2**2 + 0.1**2) / HEIGHT**2)
    torch.testing.assert_close(errors[1] - errors[0], expected, rtol=1e-2, atol=1e-4)


def test_other_sizes_are_refused():
    with pytest.raises(UserError, match=r"takes images of the shape \(B, 3, 32, 32\)"):
        tiny().encode(torch.zeros(1, 3, 64, 64))


def test_folder_without_a_prior_is_refused(tmp_path):
    with pytest.raises(UserError, match="the folder 'autoencoder' is missing"):
        EmbeddedViewPrior.from_pretrained(tmp_path)


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
    """Without noise the prediction leads to the true view from the wanted camera."""
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
