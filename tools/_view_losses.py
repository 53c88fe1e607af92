"""Training data of the view-conditioned prior, groups of views, and its losses given one known view."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from _views import Views
from torch import Tensor

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.three_d.geometry.cameras import relative_pose
from latentdem.three_d.priors.frustum import cells
from latentdem.three_d.priors.network import FeatureVolume, ViewNetwork

WEIGHTS = {"estimate": 1, "fused": 1, "variance": 0.1, "angle": 1, "solid": 10, "v": 1}  # weights of the losses
WITHOUT_VIEW = 0.1  # share of the target views whose known view is hidden, for guidance
TRUE_ANGLES = 0.5  # share of the known views with their true polar angles instead of the estimated ones


class ViewGroup(NamedTuple):
    """N known views and M target views for each.

    Attributes:
        picture: (N, 3, S, S) known views, in [-1, 1].
        known: (N, c, h, w) latents of the known views.
        target: (N M, c, h, w) latents of the target views.
        pose: (N M, 3) poses of the target views relative to the known ones.
        polar, radius: (N,) true polar angles and distances of the known views.
        inside: (N, 2 h, 2 h, 2 h) share of each cell of their frustums that the object fills.
    """

    picture: Tensor
    known: Tensor
    target: Tensor
    pose: Tensor
    polar: Tensor
    radius: Tensor
    inside: Tensor


def draw_group(data: Views, coder: EmbeddedAutoencoder, count: int, targets: int) -> ViewGroup:
    """Draws random views of random objects, with the volumes of the objects.

    Args:
        data: renderings.
        coder: autoencoder.
        count, targets: numbers N and M.
    """
    objects, known, others = data.groups(count, targets)
    camera = data.cameras[objects, known]
    pose = relative_pose(data.cameras[objects[:, None], others], camera[:, None]).flatten(0, 1)
    picture = data.images(objects, known)
    both = torch.cat([picture, data.images(objects[:, None], others).flatten(0, 1)])
    with torch.no_grad():
        latents = coder.encode(both.contiguous(memory_format=torch.channels_last)).float()
    size = 2 * latents.shape[-1]
    inside = data.inside(objects, cells(camera, size, size))
    return ViewGroup(picture, latents[:count], latents[count:], pose, camera[:, 0], camera[:, 2], inside)


def estimate_losses(model: ViewNetwork, group: ViewGroup, visible: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Features of the target views, and the losses of all estimates that they are computed from.

    These are the errors of the first estimate of the target latents and of the polar angles of known views, the
    likelihood of the predicted variance, and the cross-entropy of the opacity.

    Args:
        model: the network.
        group: N known and N M target views.
        visible: (N M,) 1 where the known view is given, 0 where it is hidden.
    """
    volume, polar = model.encode_view(group.known, group.picture)
    opacity, count = volume.opacity[:, 0], len(group.target) // len(group.known)
    true = torch.rand(len(polar), device=polar.device) < TRUE_ANGLES
    used = torch.where(true, group.polar, polar.detach())
    known = torch.stack([used, torch.zeros_like(used), group.radius], dim=1)
    *parts, known = (part.repeat_interleave(count, 0) for part in (*volume, known))
    shown = FeatureVolume(*(torch.einsum("b,b...->b...", visible, part) for part in parts))
    rendered = model.render(shown, known, group.pose)
    estimate, variance = model.estimate(rendered)
    errors = (estimate - group.target).square().mean(1)
    surprise = errors.detach() * (-variance).exp() + variance
    with torch.autocast(opacity.device.type, enabled=False):
        solid = F.binary_cross_entropy(opacity.float(), group.inside)
    losses = {
        "estimate": errors.mean(),
        "variance": surprise.mean(),
        "angle": F.mse_loss(polar, group.polar),
        "solid": solid,
    }
    return rendered, losses


def training_losses(
    model: ViewNetwork, group: ViewGroup, levels: Tensor, denoised: float = 1.0
) -> dict[str, Tensor]:
    """Losses of `estimate_losses` and of v at random timesteps, their weighted sum, and the error of the noise.

    Args:
        model: the network.
        group: N known and N M target views.
        levels: (T,) cumulative alphas.
        denoised: share of the target views with a loss of v, which takes a third of the time.
    """
    visible = (torch.rand(len(group.target), device=levels.device) >= WITHOUT_VIEW).float()
    rendered, losses = estimate_losses(model, group, visible)
    level, error = denoising_errors(model, group.target, rendered, levels, denoised)
    losses |= {"v": error.mean()}
    total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return {"loss": total, **losses, "noise": (level * error).mean()}


def denoising_errors(
    model: ViewNetwork, target: Tensor, rendered: Tensor, levels: Tensor, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cumulative alphas (N,) of random timesteps, and the mean squared error (N,) of v there, for N of B views.

    Args:
        model: the network.
        target: (B, c, h, w) latents of target views.
        rendered: (B, r, h, w) features of the target views.
        levels: (T,) cumulative alphas.
        share: N / B.
    """
    rows, device = max(1, round(share * len(target))), levels.device
    chosen = torch.randperm(len(target), device=device)[:rows]
    target, rendered = target[chosen], rendered[chosen]
    # One t per stratum of the schedule: the loss varies less between steps than with independent draws.
    strata = (torch.rand(rows, device=device).argsort() + torch.rand(rows, device=device)) / rows
    t = (strata * len(levels)).long().clamp_max(len(levels) - 1)
    signal, sigma = (a.view(-1, 1, 1, 1) for a in (levels[t].sqrt(), (1 - levels[t]).sqrt()))
    noise = torch.randn_like(target)
    output = model.denoise(signal * target + sigma * noise, t, rendered, levels[t]).float()
    return levels[t], (output - signal * noise + sigma * target).square().mean((1, 2, 3))
