"""Priors for tests: the embedded one with tiny random networks, the exact one, and inputs for them."""

from __future__ import annotations

import math

import torch
from diffusers import DDPMScheduler
from PIL import Image

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.parametrization import Parametrization
from latentdem.three_d.pictures import Crops
from latentdem.three_d.priors.embedded import EmbeddedViewPrior
from latentdem.three_d.priors.framing import Framing
from latentdem.three_d.priors.network import ViewNetwork
from latentdem.three_d.priors.occupancy import Occupancy
from latentdem.three_d.priors.pose_scorer import PoseScorer
from latentdem.three_d.synthetic.finite_objects import FiniteObjectsPrior

SCHEDULER = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
)


def tiny(guidance: float = 1.0, **networks: Framing | PoseScorer | Occupancy | None) -> EmbeddedViewPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ViewNetwork(latent_size=8, widths=(16, 32), volume_features=4, flattened=16, rendered=16)
        autoencoder = EmbeddedAutoencoder(widths=(8, 16))
    return EmbeddedViewPrior(autoencoder, network, Parametrization.of(SCHEDULER), guidance, **networks)


def scorer() -> PoseScorer:
    """An untrained network for `tiny` priors whose statistics and scores are not trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = PoseScorer(16, 8, (8, 12), 8)
        network(torch.randn(8, 16, 8, 8), torch.randn(8, 8, 8, 8))
    return network.eval().requires_grad_(False)


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


def in_double_precision(prior: EmbeddedViewPrior) -> EmbeddedViewPrior:
    """The prior with all computations in float64, for numerical derivatives."""
    prior.network.double()
    prior.autoencoder.double()
    return prior


def crops(size: int, count: int = 2) -> Crops:
    """Crops of rectangles of two colours each."""
    images = []
    for i in range(count):
        colour, box = (200 - 60 * i, 30 + 20 * i, 30), (8 + 6 * i, 6 + 4 * i, 34, 40 - 2 * i)
        image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
        image.paste((*colour, 255), box)
        image.paste((250, 220, 40, 255), (box[0], box[1], box[0] + 9, box[1] + 12))
        images.append(image)
    return Crops(images, size, ["a", "b", "c"][:count])


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
