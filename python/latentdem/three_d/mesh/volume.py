"""A coloured signed-distance field, fitted to views of an object by differentiable volume rendering.

Rays are traced through a dense grid, coarse first. Rays and grid points are fixed while the field changes,
which makes the fit fast on a CPU: sampling all rays is one product with a sparse matrix of interpolation
weights, whose rows are restricted to the neighbourhood of the surface that a level starts with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .hull import PosedViews, SurfaceField, visual_hull
from .rays import OUTSIDE, Rays, Sample, cast_rays

COARSEST = 32  # grid points along one side at the first level
STEPS = 100  # steps of Adam at each level
WIDTHS = (1.5, 0.4)  # width of the surface in voxels, at the first and the last step of a level
RATES = (0.1, 0.03)  # learning rates of distances in voxels and of colours
SOFTNESS = 0.1  # the loss of residuals of masks and colours is quadratic below, linear above
# Weights of the losses relative to that of the colours of the views.
MASK, EIKONAL, BENDING, COLOUR, FILLED = 1.0, 0.02, 0.005, 0.02, 0.5


def fit_volume(
    views: PosedViews, resolution: int = 64, progress: Callable[[str, int, int], None] | None = None
) -> SurfaceField:
    """Fits surface and colours to the views, from the visual hull on a coarse grid to `resolution` points.

    The opacity of a step along a ray is that of NeuS (Wang et al. 2021, Eq. 13), which places the surface of a
    silhouette where the distance is zero. Losses: masks and colours on white, both robust because generated
    views are inconsistent; the cross-entropy with what a prior predicts to be filled, which includes hollows
    that no silhouette shows; a gradient of length 1 and small curvature of the distance; smooth colours.

    Args:
        views: the views, of which at least one shows an object.
        resolution: grid points along one side.
        progress: called as progress("surface", steps done, all steps).
    """
    levels = sorted({min(COARSEST, resolution), resolution})
    volume = visual_hull(views.at_most(levels[0]), levels[0])
    for index, level in enumerate(levels):

        def report(step: int, done: int = index * STEPS) -> None:
            if progress is not None:
                progress("surface", done + step, len(levels) * STEPS)

        volume = _fit(_resized(volume, level), views.at_most(level), report)
    return volume


def _resized(volume: SurfaceField, resolution: int) -> SurfaceField:
    scale = (resolution - 1) / (len(volume.distance) - 1)
    colour = _resize(volume.colour.movedim(-1, 0), resolution).movedim(0, -1)
    return SurfaceField(scale * _resize(volume.distance[None], resolution)[0], colour)


def _resize(grid: Tensor, resolution: int) -> Tensor:
    """A grid (C, N, N, N) resampled to `resolution` points along each side, between the same ends."""
    return F.interpolate(grid[None], (resolution,) * 3, mode="trilinear", align_corners=True)[0]


def _fit(volume: SurfaceField, views: PosedViews, report: Callable[[int], None]) -> SurfaceField:
    """Optimises the field of one level by Adam, while its surface gets sharper."""
    rays = cast_rays(volume.distance, views)
    shape = volume.distance.shape
    distance = volume.distance.flatten()[:, None].clone().requires_grad_()
    colour = volume.colour.reshape(-1, 3).clone().requires_grad_()
    near = (volume.distance.abs() < OUTSIDE)[1:-1, 1:-1, 1:-1]
    groups = [{"params": [distance], "lr": RATES[0]}, {"params": [colour], "lr": RATES[1]}]
    filled = None if views.filled is None else _resize(views.filled[None], len(volume.distance))[0]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    for step in range(STEPS):
        width = WIDTHS[0] * (WIDTHS[1] / WIDTHS[0]) ** (step / (STEPS - 1))
        mask, colours = _render(torch.cat([distance, colour], 1), rays, width)
        losses = MASK * robust(mask - rays.masks) + robust(colours - rays.colours).mean(-1)
        loss = (rays.ray_weights * losses).sum()
        loss = loss + _roughness(distance.reshape(shape), colour.reshape(*shape, 3), near)
        if filled is not None:
            inside = torch.sigmoid(-distance.reshape(shape))
            loss = loss + FILLED * F.binary_cross_entropy(inside, filled)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step + 1)
    return SurfaceField(distance.detach().reshape(shape), colour.detach().reshape(*shape, 3).clamp(0, 1))


def _render(field: Tensor, rays: Rays, width: float) -> tuple[Tensor, Tensor]:
    """Masks (R,) and colours on white (R, 3) of the rays through a field (P, 4) of distance and colour."""
    samples = Sample.apply(field, rays.weights)
    # log of the share of the surface's profile that is still ahead; it falls where a ray enters (NeuS, Eq. 13)
    ahead = F.logsigmoid(samples[:, 0] / width)
    before = F.pad(ahead[:-1], (1, 0)).index_fill(0, rays.first, 0)
    thickness = F.relu(before - ahead).double()  # in float32 a sum over all rays would lose its small terms
    behind = thickness.cumsum(0)
    start = (behind - thickness)[rays.first]
    passed = behind - thickness - start[rays.ray]
    share = (torch.exp(-passed) * -torch.expm1(-thickness)).float()
    total = torch.zeros(len(rays.first), 4)
    summed = total.index_add(0, rays.ray, share[:, None] * F.pad(samples[:, 1:], (0, 1), value=1))
    mask = summed[:, 3]
    return mask, summed[:, :3] + (1 - mask)[:, None]


def robust(residual: Tensor) -> Tensor:
    """Charbonnier loss of residuals of any shape, linear far above `SOFTNESS`."""
    return (residual**2 + SOFTNESS**2).sqrt() - SOFTNESS


def _roughness(distance: Tensor, colour: Tensor, near: Tensor) -> Tensor:
    """Regularisation of the field at points near the surface, `near` (N - 2, N - 2, N - 2)."""
    gradient = torch.stack(torch.gradient(distance), -1)[1:-1, 1:-1, 1:-1][near]
    eikonal = (gradient.norm(dim=-1) - 1).square().mean()
    bending = _laplacian(distance[..., None])[near].square().mean()
    return EIKONAL * eikonal + BENDING * bending + COLOUR * _laplacian(colour)[near].square().mean()


def _laplacian(field: Tensor) -> Tensor:
    """Laplacian (N - 2, N - 2, N - 2, C) of a field (N, N, N, C)."""
    inner = slice(1, -1)
    total = -6 * field[inner, inner, inner]
    for low in (slice(None, -2), slice(2, None)):
        total = total + field[low, inner, inner] + field[inner, low, inner] + field[inner, inner, low]
    return total
