"""What the view-conditioned prior is trained on: groups of views, and what they say of a volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _views import Views
from torch import Tensor

from latentdem.three_d.cameras import relative_pose
from latentdem.three_d.frustum import cells
from latentdem.three_d.view_network import ViewNetwork

WEIGHTS = {"estimate": 1.0, "variance": 0.1, "angle": 1.0, "solid": 10.0, "v": 1.0}  # of the losses
TRUE_ANGLES = 0.5  # share of the known views that are turned by their true polar angle, not the estimated one


@dataclass(frozen=True)
class ViewGroup:
    """N known views and M wanted ones of each.

    Attributes:
        known: latents (N, c, h, w).
        wanted: latents (N M, c, h, w).
        pose: (N M, 3) of the wanted ones relative to the known ones.
        polar, radius: (N,) true polar angles and distances of the known ones.
        inside: (N, d, h, w) how much of each cell of their frustums the object fills.
    """

    known: Tensor
    wanted: Tensor
    pose: Tensor
    polar: Tensor
    radius: Tensor
    inside: Tensor


class ViewGroups:
    """Random groups of the training views, and what the objects themselves tell of them.

    Args:
        out: folder of the training.
        latents: (objects, views, c, h, w) of the views there.
        where: device of the groups.
    """

    def __init__(self, out: Path, latents: Tensor, where: torch.device) -> None:
        self._folder, self.latents, self._where = out / "train", latents, where
        self.restart(0)

    def restart(self, seed: int) -> None:
        """Other groups from here on, and other noise."""
        torch.manual_seed(seed)
        self._data = Views(self._folder, seed=seed)

    def draw(self, count: int, wanted: int) -> ViewGroup:
        """`count` known views and `wanted` ones of each."""
        data = self._data
        objects, known, others = data.groups(count, wanted)
        camera = data.cameras[objects, known]
        pose = relative_pose(data.cameras[objects[:, None], others], camera[:, None]).flatten(0, 1)
        size = self.latents.shape[-1]
        tensors = (
            self.latents[objects, known].float(),
            self.latents[objects[:, None], others].flatten(0, 1).float(),
            pose,
            camera[:, 0],
            camera[:, 2],
            data.inside(objects, cells(camera, size, size)),
        )
        return ViewGroup(*(each.to(self._where) for each in tensors))


def build(latents: Any) -> ViewNetwork:
    """A fresh network for latents (..., c, h, w)."""
    return ViewNetwork(latent_channels=latents.shape[-3], latent_size=latents.shape[-1])


def look(model: ViewNetwork, group: ViewGroup, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The features of the wanted views, and the losses of what leads to them.

    These are the errors of the first estimate of the wanted latents and of the known views' polar angles, the
    likelihood of the variance that it claims, and the cross-entropy of the opacity.

    Args:
        model: the network.
        group: N known and N M wanted views.
        seen: (N M,) 1 where the known view is shown, 0 where it is hidden.
    """
    volume, polar = model.encode_view(group.known)
    opacity, count = volume[:, 0], len(group.wanted) // len(group.known)
    true = torch.rand(len(polar), device=polar.device) < TRUE_ANGLES
    used = torch.where(true, group.polar, polar.detach())
    volume, used, radius = (each.repeat_interleave(count, 0) for each in (volume, used, group.radius))
    rendered = model.render(volume * seen.view(-1, 1, 1, 1, 1), used, group.pose, radius)
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


def total(losses: dict[str, Tensor]) -> Tensor:
    """The weighted sum."""
    return torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
