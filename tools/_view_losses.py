"""What the view-conditioned prior is trained on: groups of views, and what they say of a volume."""

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

WEIGHTS = {"estimate": 1, "fused": 1, "variance": 0.1, "angle": 1, "solid": 10, "v": 1}  # of the losses
WITHOUT_VIEW = 0.1  # share of the wanted views whose known view is hidden, for guidance
TRUE_ANGLES = 0.5  # share of the known views that are turned by their true polar angle, not the estimated one


class ViewGroup(NamedTuple):
    """N known views and M wanted ones of each.

    Attributes:
        picture: (N, 3, S, S) of the known ones, in [-1, 1].
        known: latents (N, c, h, w).
        wanted: latents (N M, c, h, w).
        pose: (N M, 3) of the wanted ones relative to the known ones.
        polar, radius: (N,) true polar angles and distances of the known ones.
        inside: (N, 2 h, 2 h, 2 h) how much of each cell of their frustums the object fills.
    """

    picture: Tensor
    known: Tensor
    wanted: Tensor
    pose: Tensor
    polar: Tensor
    radius: Tensor
    inside: Tensor


def draw_group(data: Views, coder: EmbeddedAutoencoder, count: int, wanted: int) -> ViewGroup:
    """Random views, and what the objects themselves tell of them.

    Args:
        data: the views.
        coder: makes their latents.
        count, wanted: N known views and M wanted ones of each.
    """
    objects, known, others = data.groups(count, wanted)
    camera = data.cameras[objects, known]
    pose = relative_pose(data.cameras[objects[:, None], others], camera[:, None]).flatten(0, 1)
    picture = data.images(objects, known)
    both = torch.cat([picture, data.images(objects[:, None], others).flatten(0, 1)])
    with torch.no_grad():
        latents = coder.encode(both.contiguous(memory_format=torch.channels_last)).float()
    size = 2 * latents.shape[-1]
    inside = data.inside(objects, cells(camera, size, size))
    return ViewGroup(picture, latents[:count], latents[count:], pose, camera[:, 0], camera[:, 2], inside)


def look(model: ViewNetwork, group: ViewGroup, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The features of the wanted views, and the losses of what leads to them.

    These are the errors of the first estimate of the wanted latents and of the known views' polar angles, the
    likelihood of the variance that it claims, and the cross-entropy of the opacity.

    Args:
        model: the network.
        group: N known and N M wanted views.
        seen: (N M,) 1 where the known view is shown, 0 where it is hidden.
    """
    volume, polar = model.encode_view(group.known, group.picture)
    opacity, count = volume.opacity[:, 0], len(group.wanted) // len(group.known)
    true = torch.rand(len(polar), device=polar.device) < TRUE_ANGLES
    used = torch.where(true, group.polar, polar.detach())
    known = torch.stack([used, torch.zeros_like(used), group.radius], dim=1)
    *parts, known = (each.repeat_interleave(count, 0) for each in (*volume, known))
    shown = FeatureVolume(*(torch.einsum("b,b...->b...", seen, part) for part in parts))
    rendered = model.render(shown, known, group.pose)
    estimate, variance = model.estimate(rendered)
    errors = (estimate - group.wanted).square().mean(1)
    unlikely = errors.detach() * (-variance).exp() + variance
    with torch.autocast(opacity.device.type, enabled=False):
        solid = F.binary_cross_entropy(opacity.float(), group.inside)
    losses = {
        "estimate": errors.mean(),
        "variance": unlikely.mean(),
        "angle": F.mse_loss(polar, group.polar),
        "solid": solid,
    }
    return rendered, losses


def training_losses(model: ViewNetwork, group: ViewGroup, levels: Tensor) -> dict[str, Tensor]:
    """Those of `look`, the error of v at random timesteps, their weighted sum, and the error of the noise.

    Args:
        model: the network.
        group: N known and N M wanted views.
        levels: (T,) cumulative alphas.
    """
    seen = (torch.rand(len(group.wanted), device=levels.device) >= WITHOUT_VIEW).float()
    rendered, losses = look(model, group, seen)
    level, error = denoising_errors(model, group.wanted, rendered, levels)
    losses |= {"v": error.mean()}
    total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return {"loss": total, **losses, "noise": (level * error).mean()}


def denoising_errors(
    model: ViewNetwork, wanted: Tensor, rendered: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    """Cumulative alphas (B,) of random timesteps, and the mean squared error (B,) of v there.

    Args:
        model: the network.
        wanted: (B, c, h, w) latents.
        rendered: (B, r, h, w) their features.
        levels: (T,) cumulative alphas.
    """
    rows, where = len(wanted), levels.device
    # One t per stratum of the schedule: the loss varies less between steps than with independent draws.
    strata = (torch.rand(rows, device=where).argsort() + torch.rand(rows, device=where)) / rows
    t = (strata * len(levels)).long().clamp_max(len(levels) - 1)
    signal, sigma = (a.view(-1, 1, 1, 1) for a in (levels[t].sqrt(), (1 - levels[t]).sqrt()))
    noise = torch.randn_like(wanted)
    output = model.denoise(signal * wanted + sigma * noise, t, rendered, levels[t]).float()
    return levels[t], (output - signal * noise + sigma * wanted).square().mean((1, 2, 3))
