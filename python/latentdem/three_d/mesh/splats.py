"""Surface fit by Gaussian splatting, which needs the package gsplat and a CUDA device."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ..geometry.cameras import EXTENT, FIELD_OF_VIEW, camera_axes, grid_points
from .hull import PosedViews, SurfaceField, visual_hull
from .volume import robust

STEPS = 1000  # steps of Adam
RATES = {"means": 1e-3, "scales": 5e-3, "opacities": 5e-2, "colours": 2e-2}
MARGIN = 1.5  # voxels around the visual hull in which Gaussians are initialised
LEVEL = 0.5  # opacity at the surface
REACH = 3  # radius in voxels within which a Gaussian is evaluated


def check_splats() -> None:
    """Raises a UserError unless gsplat is installed and there is a CUDA device."""
    if find_spec("gsplat") is None:
        raise UserError("The surface 'gsplat' needs the package gsplat; pip install gsplat, or use 'volume'.")
    if not torch.cuda.is_available():
        raise UserError("The surface 'gsplat' needs a CUDA device; use 'volume', which runs on a CPU.")


def fit_splats(
    views: PosedViews, resolution: int = 64, progress: Callable[[str, int, int], None] | None = None
) -> SurfaceField:
    """Fits isotropic Gaussians (after Kerbl et al. 2023) to the views and adds up their opacities on a grid.

    For arguments and result see `volume.fit_volume`. One Gaussian starts at each grid point of the visual hull;
    those that no view shows keep the inside filled.

    Raises:
        UserError: gsplat is not installed, or there is no CUDA device.
    """
    check_splats()
    from gsplat import rasterization

    hull = visual_hull(views, resolution)
    inside = hull.distance < MARGIN
    gaussians = _start(grid_points(resolution)[inside], hull.colour[inside], 2 * EXTENT / (resolution - 1))
    turns = torch.tensor([1.0, 0, 0, 0], device="cuda").expand(len(gaussians["means"]), 4)
    groups = [{"params": [gaussians[name]], "lr": rate} for name, rate in RATES.items()]
    optimizer = torch.optim.Adam(groups)
    truth = torch.cat([views.colours.movedim(1, -1), views.masks[..., None]], -1).cuda()
    weights = (views.weights / views.weights.sum()).cuda()
    size = truth.shape[1]
    poses, intrinsics = world_to_camera(views.cameras).cuda(), intrinsic_matrix(size).cuda()
    for step in range(STEPS):
        colours, alpha, _ = rasterization(
            gaussians["means"],
            turns,
            gaussians["scales"].exp().expand(-1, 3),
            gaussians["opacities"].sigmoid(),
            gaussians["colours"].sigmoid(),
            poses,
            intrinsics.expand(len(poses), 3, 3),
            size,
            size,
            backgrounds=torch.ones(len(poses), 3, device="cuda"),
        )
        loss = (weights * robust(torch.cat([colours, alpha], -1) - truth).mean((1, 2, 3))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress("surface", step + 1, STEPS)
    return splat_volume({name: value.detach().cpu() for name, value in gaussians.items()}, resolution)


def world_to_camera(cameras: Tensor) -> Tensor:
    """Matrices (V, 4, 4) from the world to cameras (V, 3) whose axes are right, down and forward (OpenCV)."""
    position, right, up, forward = camera_axes(cameras)
    matrices = torch.eye(4).repeat(len(cameras), 1, 1)
    matrices[:, :3, :3] = torch.stack([right, -up, forward], 1)
    matrices[:, :3, 3] = -(matrices[:, :3, :3] @ position[..., None])[..., 0]
    return matrices


def intrinsic_matrix(size: int) -> Tensor:
    """Intrinsic matrix (3, 3) of pictures of `size` pixels, in pixels."""
    focal = size / 2 / math.tan(FIELD_OF_VIEW / 2)
    return torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def splat_volume(gaussians: dict[str, Tensor], resolution: int) -> SurfaceField:
    """Surface of the region where the opacity of Gaussians exceeds `LEVEL`, in their mean colour.

    Args:
        gaussians: "means" (G, 3), logarithms of widths "scales" (G, 1), logits of "opacities" (G,) and
            "colours" (G, 3).
        resolution: grid points along one side.
    """
    voxel = 2 * EXTENT / (resolution - 1)
    nearest = ((gaussians["means"] + EXTENT) / voxel).round().long()
    total = torch.zeros(resolution**3, 4)
    around = torch.arange(-REACH, REACH + 1)
    for shift in torch.cartesian_prod(around, around, around):
        index = nearest + shift
        inside = ((index >= 0) & (index < resolution)).all(-1)
        offset = index[inside] * voxel - EXTENT - gaussians["means"][inside]
        squared = (offset / gaussians["scales"][inside].exp()).square().sum(-1)
        opacity = gaussians["opacities"][inside].sigmoid() * torch.exp(-squared / 2)
        values = F.pad(gaussians["colours"][inside].sigmoid(), (0, 1), value=1)
        flat = (index[inside] * torch.tensor([resolution**2, resolution, 1])).sum(-1)
        total.index_add_(0, flat, opacity[:, None] * values)
    total = total.reshape(resolution, resolution, resolution, 4)
    covered = -torch.expm1(-total[..., 3])
    return SurfaceField(LEVEL - covered, total[..., :3] / total[..., 3:].clamp(min=1e-6))


def _start(means: Tensor, colours: Tensor, voxel: float) -> dict[str, Tensor]:
    """Initial half-transparent Gaussians of the size of a voxel at `means` (G, 3), on the GPU."""
    start = {
        "means": means,
        "scales": torch.full((len(means), 1), math.log(voxel)),
        "opacities": torch.zeros(len(means)),
        "colours": torch.logit(colours.clamp(0.05, 0.95)),
    }
    return {name: value.cuda().requires_grad_() for name, value in start.items()}
