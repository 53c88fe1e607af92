"""Test-time optimisation of the volumes of several known views, and of their cameras, to fit each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.cameras import relative_pose
from ..geometry.poses import MovingPoses
from .network import FeatureVolume, ViewNetwork

ADAPT_STEPS = 40
FEATURES_RATE, OPACITY_RATE = 0.02, 0.05  # learning rates of features and logits of the opacity in `adapt`
BUNDLE_STEPS = 60
BUNDLE_OPACITY_RATE, BUNDLE_POSE_RATE = 0.3, 0.01  # learning rates of logits and cameras (radians) in `bundle`


@torch.enable_grad()
def adapt(network: ViewNetwork, volume: FeatureVolume, cameras: Tensor) -> FeatureVolume:
    """Volumes of n views of one object, adapted until each predicts all n views as they are.

    Adam makes `ADAPT_STEPS` steps on the features and, with several views, on the opacity; a single view does
    not determine depth. In every step each view predicts one of the views, itself in the first step. The idea
    of learning from the input is that of Sun et al. 2020, *Test-Time Training*; here the weights are fixed.

    Args:
        network: network that computed the volumes; it is not changed.
        volume: n volumes, as returned by `ViewNetwork.agree`.
        cameras: (n, 3) polar angle and azimuth in radians and distance, in one coordinate system.
    """
    several, latents = len(cameras) > 1, network.latents_in(volume)
    features = volume.features[:, 1:].detach().clone().requires_grad_()
    logits = volume.logits.requires_grad_(several)
    rates = {features: FEATURES_RATE, logits: OPACITY_RATE}
    adam = torch.optim.Adam(
        [{"params": [tensor], "lr": rate} for tensor, rate in rates.items() if tensor.requires_grad],
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, ADAPT_STEPS)

    def adapted() -> FeatureVolume:
        opacity = torch.sigmoid(logits) if several else volume.opacity
        return FeatureVolume.of(opacity, features, volume.picture[:, :-1])

    for step in range(ADAPT_STEPS):
        adam.zero_grad()
        _prediction_error(network, adapted(), cameras, latents, (step,)).backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        return adapted()


@torch.enable_grad()
def bundle(network: ViewNetwork, volume: FeatureVolume, cameras: Tensor, radius: bool = False) -> Tensor:
    """Cameras (n, 3) of n views of one object, optimised jointly with its shape: bundle adjustment.

    A volume that is inferred from one view has wrong depths, and a camera that is fitted to it alone
    compensates for them. Here Adam makes `BUNDLE_STEPS` steps on the opacity of all volumes and on the cameras
    at once, until each view predicts itself and, in turn, each other view as they are. All polar angles and
    principal points are optimised, and all azimuths but the first. Source: Triggs et al. 1999, *Bundle
    adjustment, a modern synthesis*.

    Args:
        network: network that computed the volumes; it is not changed.
        volume: n > 1 volumes, as returned by `ViewNetwork.encode_view`.
        cameras: (n, 3) polar angle and azimuth in radians and distance, in one coordinate system.
        radius: whether the distances are optimised, too.
    """
    latents, features, logits = network.latents_in(volume), volume.features[:, 1:], volume.logits
    adam = torch.optim.Adam([logits.requires_grad_()], lr=BUNDLE_OPACITY_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, BUNDLE_STEPS)
    moving = MovingPoses(cameras[None], radius, first=True)
    for step in range(BUNDLE_STEPS):
        current = moving.poses[0].requires_grad_()
        opacity = torch.sigmoid(logits)
        adapted = FeatureVolume.of(opacity, features, volume.picture[:, :-1])
        other = 1 + step % (len(cameras) - 1)
        error = _prediction_error(network, adapted, current, latents, (0, other))
        logits.grad, gradient = torch.autograd.grad(error, (logits, current))
        adam.step()
        schedule.step()
        moving.move(gradient[None], BUNDLE_POSE_RATE * (1 - step / BUNDLE_STEPS))
    return moving.poses[0]


def _prediction_error(
    network: ViewNetwork, volume: FeatureVolume, cameras: Tensor, latents: Tensor, shifts: Sequence[int]
) -> Tensor:
    """Mean squared error of the latents that each of n views predicts of others, summed over `shifts`.

    Args:
        network, volume, cameras: see `adapt`.
        latents: (n, c, h, w) latents of the views.
        shifts: distances in the order of the views; 0 for each view itself.
    """
    parts = (part.repeat(len(shifts), *[1] * (part.ndim - 1)) for part in volume)
    shown, targets = (torch.cat([views.roll(-shift, 0) for shift in shifts]) for views in (cameras, latents))
    known = cameras.repeat(len(shifts), 1)
    predicted, _ = network.estimate(network.render(FeatureVolume(*parts), known, relative_pose(shown, known)))
    return len(shifts) * F.mse_loss(predicted, targets.to(predicted))
