"""What the view-conditioned prior learns of several known views of one object."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from _view_losses import WEIGHTS, denoising_errors
from _views import Views
from torch import Tensor

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.three_d.geometry.cameras import POLAR_RANGE, relative_pose
from latentdem.three_d.fusion import fuse
from latentdem.three_d.priors.network import FeatureVolume, ViewNetwork

KNOWN = (2, 3)  # views in turn
MISPLACED = 0.05  # radians, standard deviation, by which half of the known views are not where they seem


class Together(NamedTuple):
    """n known views of N objects, and M wanted ones of each.

    Attributes:
        picture: (N n, 3, S, S) of the known ones, in [-1, 1].
        known: latents (N n, c, h, w).
        wanted: latents (N M, c, h, w).
        cameras: (N, n + M, 3) true ones, known ones first.
    """

    picture: Tensor
    known: Tensor
    wanted: Tensor
    cameras: Tensor


@torch.no_grad()
def draw_together(data: Views, coder: EmbeddedAutoencoder, objects: int, known: int, wanted: int) -> Together:
    """Random views of random objects.

    Args:
        data: renderings.
        coder: makes their latents.
        objects, known, wanted: N, n, M.
    """
    drawn, first, others = data.groups(objects, known + wanted - 1)
    views = torch.cat([first[:, None], others], dim=1)
    pictures = data.images(drawn[:, None], views)
    flat = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    latents = coder.encode(flat).float().unflatten(0, (objects, -1))
    parts = (pictures[:, :known], latents[:, :known], latents[:, known:])
    return Together(*(part.flatten(0, 1) for part in parts), data.cameras[drawn[:, None], views])


def together_losses(model: ViewNetwork, group: Together, levels: Tensor) -> dict[str, Tensor]:
    """Errors of the corrected first estimates, of what they are fused to, and of v, and their weighted sum.

    As in a reconstruction, the polar angles are known up to an error that the views have in common, some
    views are not quite where they seem to be, and the opacity of the known views is made to agree.

    Args:
        model: the network.
        group: what it is shown.
        levels: (T,) cumulative alphas.
    """
    objects, where = len(group.cameras), levels.device
    known, wanted = len(group.known) // objects, len(group.wanted) // objects

    def half(*shape: int) -> Tensor:
        return (torch.rand(shape, device=where) < 0.5).float()

    volume, polar = model.encode_view(group.known, group.picture)
    found = polar.detach().unflatten(0, (objects, known))
    error = (found - group.cameras[:, :known, 0]).mean(1, keepdim=True) * half(objects, 1)
    raised = torch.stack([error, torch.zeros_like(error), torch.zeros_like(error)], dim=-1)
    seem, shown = (group.cameras + raised).split([known, wanted], dim=1)
    moved = MISPLACED * torch.randn(objects, known - 1, 2, device=where) * half(objects, known - 1, 1)
    angles = seem[..., :2] + F.pad(moved, (0, 0, 1, 0))
    polars = angles[..., :1].clamp(*POLAR_RANGE)
    seem = torch.cat([polars, angles[..., 1:], seem[..., 2:]], dim=-1)
    agreed = model.agree(FeatureVolume(*(part.float() for part in volume)), seem)

    def repeated(part: Tensor) -> Tensor:  # for each wanted view, (N n, ...) as (N M n, ...)
        parts = part.unflatten(0, (objects, 1, known))
        return parts.expand(-1, wanted, *parts.shape[2:]).flatten(0, 2)

    here = repeated(seem.flatten(0, 1))
    pose = relative_pose(shown.flatten(0, 1).repeat_interleave(known, 0), here)
    rendered = model.render(FeatureVolume(*map(repeated, agreed)), here, pose)
    rendered = model.hear(rendered, known)
    means, log_variances = (each.unflatten(0, (-1, known)) for each in model.estimate(rendered))
    errors = (means - group.wanted[:, None]).square().mean(2)
    fused = fuse(means, log_variances.exp()[:, :, None], 0.0)
    _, v = denoising_errors(model, group.wanted.repeat_interleave(known, 0), rendered, levels)
    losses = {
        "estimate": errors.mean(),
        "fused": (fused - group.wanted).square().mean(),
        "variance": (errors.detach() * (-log_variances).exp() + log_variances).mean(),
        "v": v.mean(),
    }
    total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return {"loss": total, **losses}
