"""What the view-conditioned prior learns of several known views of one object."""

from __future__ import annotations

import torch
from _view_losses import WEIGHTS
from _views import Views
from torch import Tensor

from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.three_d.cameras import POLAR_RANGE, relative_pose
from latentdem.three_d.fusion import fuse
from latentdem.three_d.view_network import ViewNetwork, Volume

KNOWN = (2, 3)  # views in turn
MISPLACED = 0.05  # radians, standard deviation, by which half of the known views are not where they seem


@torch.no_grad()
def draw_together(
    data: Views, coder: EmbeddedAutoencoder, model: ViewNetwork, objects: int, known: int, wanted: int
) -> tuple[Tensor, Tensor]:
    """Features (N M n, r, h, w) of M wanted views out of n known ones of N objects, and latents (N M, c, h, w).

    As in a reconstruction, the polar angles are known up to an error that the views have in common, and the
    opacity of the known views has been made to agree.

    Args:
        data: renderings.
        coder: makes their latents.
        model: the network; nothing of it is trained here.
        objects, known, wanted: N, n, M.
    """
    where = data.pictures.device
    drawn, first, others = data.groups(objects, known + wanted - 1)
    views = torch.cat([first[:, None], others], dim=1)
    pictures = data.images(drawn[:, None], views)
    cameras = data.cameras[drawn[:, None], views]
    flat = pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    latents = coder.encode(flat).float().unflatten(0, (objects, -1))
    volume, polar = model.encode_view(latents[:, :known].flatten(0, 1), pictures[:, :known].flatten(0, 1))

    def half(*shape: int) -> Tensor:
        return (torch.rand(shape, device=where) < 0.5).float()

    error = (polar.unflatten(0, (objects, known)) - cameras[:, :known, 0]).mean(1, keepdim=True)
    cameras[:, :, 0] += error * half(objects, 1)
    seem = cameras[:, :known].clone()
    seem[:, 1:, :2] += MISPLACED * torch.randn_like(seem[:, 1:, :2]) * half(objects, known - 1, 1)
    seem[:, :, 0].clamp_(*POLAR_RANGE)
    agreed = [
        model.agree(Volume(*(part.float() for part in parts)), camera)
        for *parts, camera in zip(*(part.split(known) for part in volume), seem, strict=True)
    ]
    rows = torch.arange(objects * known, device=where).view(objects, 1, known).expand(-1, wanted, -1).flatten()
    volume = Volume(*(torch.cat(parts)[rows] for parts in zip(*agreed, strict=True)))
    here = seem.flatten(0, 1)[rows]
    pose = relative_pose(cameras[:, known:].flatten(0, 1).repeat_interleave(known, 0), here)
    return model.render(volume, here[:, 0], pose, here[:, 2]), latents[:, known:].flatten(0, 1)


def together_losses(model: ViewNetwork, rendered: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Errors of the corrected first estimates and of what they are fused to, and what their variances claim.

    Args:
        model: the network, of which the exchange is trained.
        rendered, truth: as `draw_together` gives them.
    """
    together = len(rendered) // len(truth)
    means, log_variances = (
        each.unflatten(0, (-1, together)) for each in model.estimate(model.hear(rendered.float(), together))
    )
    errors = (means - truth[:, None]).square().mean(2)
    fused = fuse(means, log_variances.exp()[:, :, None], 0.0)
    losses = {
        "estimate": errors.mean(),
        "fused": (fused - truth).square().mean(),
        "variance": (errors.detach() * (-log_variances).exp() + log_variances).mean(),
    }
    total = losses["estimate"] + losses["fused"] + WEIGHTS["variance"] * losses["variance"]
    return {"loss": total, **losses}
