"""Training losses of the view-conditioned prior given several known views of one object."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from _view_losses import WEIGHTS, denoising_errors
from _views import Views
from torch import Tensor

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.three_d.fusion import fuse
from latentdem.three_d.geometry.cameras import POLAR_RANGE, relative_pose
from latentdem.three_d.priors.network import FeatureVolume, ViewNetwork

KNOWN = (2, 3)  # numbers of known views, alternating between steps
MISPLACED = 0.05  # standard deviation in radians of the pose errors of half of the known views


class SeveralViews(NamedTuple):
    """n known views of N objects, and M target views of each.

    Attributes:
        picture: (N n, 3, S, S) known views, in [-1, 1].
        known: (N n, c, h, w) latents of the known views.
        target: (N M, c, h, w) latents of the target views.
        cameras: (N, n + M, 3) true cameras, those of known views first.
    """

    picture: Tensor
    known: Tensor
    target: Tensor
    cameras: Tensor


@torch.no_grad()
def draw_several(
    data: Views, coder: EmbeddedAutoencoder, objects: int, known: int, targets: int
) -> SeveralViews:
    """Draws random views of random objects.

    Args:
        data: renderings.
        coder: autoencoder.
        objects, known, targets: numbers N, n and M.
    """
    drawn, first, others = data.groups(objects, known + targets - 1)
    views = torch.cat([first[:, None], others], dim=1)
    pictures = data.images(drawn[:, None], views)
    flat = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    latents = coder.encode(flat).float().unflatten(0, (objects, -1))
    parts = (pictures[:, :known], latents[:, :known], latents[:, known:])
    return SeveralViews(*(part.flatten(0, 1) for part in parts), data.cameras[drawn[:, None], views])


def several_losses(
    model: ViewNetwork, group: SeveralViews, levels: Tensor, denoised: float = 1.0
) -> dict[str, Tensor]:
    """Losses of the corrected first estimates, of their fusion and of v, and their weighted sum.

    As in a reconstruction, polar angles have an error that all views share, some poses are slightly wrong, and
    the known views have a common opacity.

    Args:
        model: the network.
        group: known and target views.
        levels: (T,) cumulative alphas.
        denoised: see `training_losses`.
    """
    objects, device = len(group.cameras), levels.device
    known, targets = len(group.known) // objects, len(group.target) // objects

    def half(*shape: int) -> Tensor:
        return (torch.rand(shape, device=device) < 0.5).float()

    volume, polar = model.encode_view(group.known, group.picture)
    estimate = polar.detach().unflatten(0, (objects, known))
    error = (estimate - group.cameras[:, :known, 0]).mean(1, keepdim=True) * half(objects, 1)
    raised = torch.stack([error, torch.zeros_like(error), torch.zeros_like(error)], dim=-1)
    assumed, shown = (group.cameras + raised).split([known, targets], dim=1)
    moved = MISPLACED * torch.randn(objects, known - 1, 2, device=device) * half(objects, known - 1, 1)
    angles = assumed[..., :2] + F.pad(moved, (0, 0, 1, 0))
    polars = angles[..., :1].clamp(*POLAR_RANGE)
    assumed = torch.cat([polars, angles[..., 1:], assumed[..., 2:]], dim=-1)
    agreed = model.agree(FeatureVolume(*(part.float() for part in volume)), assumed)

    def repeated(part: Tensor) -> Tensor:  # (N n, ...) as (N M n, ...), for each target view
        parts = part.unflatten(0, (objects, 1, known))
        return parts.expand(-1, targets, *parts.shape[2:]).flatten(0, 2)

    cameras = repeated(assumed.flatten(0, 1))
    pose = relative_pose(shown.flatten(0, 1).repeat_interleave(known, 0), cameras)
    rendered = model.render(FeatureVolume(*map(repeated, agreed)), cameras, pose)
    rendered = model.exchange_views(rendered, known)
    means, log_variances = (rows.unflatten(0, (-1, known)) for rows in model.estimate(rendered))
    errors = (means - group.target[:, None]).square().mean(2)
    fused = fuse(means, log_variances.exp()[:, :, None], 0.0)
    _, v = denoising_errors(model, group.target.repeat_interleave(known, 0), rendered, levels, denoised)
    losses = {
        "estimate": errors.mean(),
        "fused": (fused - group.target).square().mean(),
        "variance": (errors.detach() * (-log_variances).exp() + log_variances).mean(),
        "v": v.mean(),
    }
    total = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return {"loss": total, **losses}
