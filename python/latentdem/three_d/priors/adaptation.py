"""Several known views of one object, fitted to each other: their volumes, and with these their cameras."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cameras import relative_pose
from ..poses import MovingPoses
from .network import FeatureVolume, ViewNetwork

ADAPTED = 40  # steps of `adapt`
FEATURES_RATE, OPACITY_RATE = 0.02, 0.05  # of its features and of the logits of its opacity
BUNDLED = 60  # steps of `bundle`
BUNDLED_OPACITY_RATE, BUNDLED_POSE_RATE = 0.3, 0.01  # of its logits, and of its cameras in radians


@torch.enable_grad()
def adapt(network: ViewNetwork, volume: FeatureVolume, cameras: Tensor) -> FeatureVolume:
    """Volumes of n views of one object, changed until what each foretells of all n views is what they show.

    `ADAPTED` steps of Adam on the features and, with several views, on the opacity: a single one does not
    say how deep anything is. In every step each view foretells one of them, itself in the first. To learn
    from the input itself: Sun et al. 2020, *Test-Time Training*; here the weights stay as they are.

    Args:
        network: made the volumes; it stays as it is.
        volume: n of them, as `ViewNetwork.agree` gives them.
        cameras: (n, 3) polar angle and azimuth in radians and distance, in one system.
    """
    several, latents = len(cameras) > 1, network.latents_in(volume)
    features = volume.features[:, 1:].detach().clone().requires_grad_()
    logits = volume.logits.requires_grad_(several)
    rates = {features: FEATURES_RATE, logits: OPACITY_RATE}
    adam = torch.optim.Adam(
        [{"params": [each], "lr": rate} for each, rate in rates.items() if each.requires_grad],
        betas=(0.9, 0.99),
    )
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, ADAPTED)

    def changed() -> FeatureVolume:
        opacity = torch.sigmoid(logits) if several else volume.opacity
        return FeatureVolume.of(opacity, features, volume.picture[:, :-1])

    for step in range(ADAPTED):
        adam.zero_grad()
        _misses(network, changed(), cameras, latents, step).backward()
        adam.step()
        falling.step()
    with torch.no_grad():
        return changed()


@torch.enable_grad()
def bundle(network: ViewNetwork, volume: FeatureVolume, cameras: Tensor, radius: bool = False) -> Tensor:
    """Cameras (n, 3) of n views of one object, moved together with its shape: bundle adjustment.

    A volume that was guessed from one view has depths that are wrong, and a camera that is judged by it alone
    is misplaced to make up for that. Here `BUNDLED` steps of Adam change the opacity of all volumes and the
    cameras at once, until what each view foretells of itself and of another one, each in turn, is what they
    show. All polar angles and principal points move, and all azimuths but the first. Source:
    Triggs et al. 1999, *Bundle adjustment, a modern synthesis*.

    Args:
        network: made the volumes; it stays as it is.
        volume: n > 1 of them, as `ViewNetwork.encode_view` gives them.
        cameras: (n, 3) polar angle and azimuth in radians and distance, in one system.
        radius: whether the distances move, too.
    """
    latents, features, logits = network.latents_in(volume), volume.features[:, 1:], volume.logits
    adam = torch.optim.Adam([logits.requires_grad_()], lr=BUNDLED_OPACITY_RATE, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, BUNDLED)
    moving = MovingPoses(cameras[None], radius, first=True)
    for step in range(BUNDLED):
        there = moving.poses[0].requires_grad_()
        opacity = torch.sigmoid(logits)
        changed = FeatureVolume.of(opacity, features, volume.picture[:, :-1])
        other = 1 + step % (len(cameras) - 1)
        itself, another = (_misses(network, changed, there, latents, shift) for shift in (0, other))
        logits.grad, gradient = torch.autograd.grad(itself + another, (logits, there))
        adam.step()
        falling.step()
        moving.move(gradient[None], BUNDLED_POSE_RATE * (1 - step / BUNDLED))
    return moving.poses[0]


def _misses(
    network: ViewNetwork, volume: FeatureVolume, cameras: Tensor, latents: Tensor, shift: int
) -> Tensor:
    """Mean squared error (a number) of what each of n views foretells of the one that is `shift` after it.

    Args:
        network, volume, cameras: as for `adapt`.
        latents: (n, c, h, w) of the views.
        shift: 0 for each view itself.
    """
    shown = cameras.roll(-shift, 0)
    rendered = network.render(volume, cameras, relative_pose(shown, cameras))
    foretold, _ = network.estimate(rendered)
    return F.mse_loss(foretold, latents.roll(-shift, 0).to(foretold))
