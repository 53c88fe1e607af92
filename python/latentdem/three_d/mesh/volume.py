"""A signed-distance field with colours, fitted to views of an object by differentiable volume rendering.

Rays are traced through a dense grid, coarse first. What makes that fast on a CPU is that rays and grid stay
where they are while the field moves: sampling all rays is one product with a sparse matrix of interpolation
weights, with rows only near the surface that a level begins with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array
from torch import Tensor

from ..cameras import EXTENT, FIELD_OF_VIEW, camera_axes, grid_points, pixel_grid

COARSEST = 32  # grid points along one side where the fit begins
STEPS = 100  # of Adam at each level
WIDTHS = (1.5, 0.4)  # of the surface in voxels, at the first and the last step of a level
RATES = (0.1, 0.03)  # of Adam: distances in voxels, colours
OUTSIDE, INSIDE = 3.0, 6.0  # voxels before and behind the surface that rays are sampled in
AGREEMENT = 0.8  # share of the views that must see the object at a point of the visual hull
SOFTNESS = 0.1  # residuals of masks and colours below it count squared, above it linearly
MASK, EIKONAL, BENDING, COLOUR = 1.0, 0.02, 0.005, 0.02  # weights of the losses, that on colours being 1
FILLED = 0.5  # the same


@dataclass(frozen=True)
class SurfaceField:
    """A surface with colours on a grid of points over [-EXTENT, EXTENT]^3.

    Attributes:
        distance: (N, N, N) along x, y and z, in voxels, negative inside the object.
        colour: (N, N, N, 3) in [0, 1]; it means something near the surface only.
    """

    distance: Tensor
    colour: Tensor


@dataclass(frozen=True)
class Pictures:
    """What the field is fitted to.

    Attributes:
        colours: (V, 3, S, S) in [0, 1], on white.
        masks: (V, S, S) in [0, 1], the share of each pixel that the object covers.
        cameras: (V, 3), see cameras.py.
        weights: (V,) with mean 1, how far each view is trusted.
        filled: (N, N, N) in [0, 1], how likely the object is at `grid_points`, where a prior says so.
    """

    colours: Tensor
    masks: Tensor
    cameras: Tensor
    weights: Tensor
    filled: Tensor | None = None

    def at_most(self, size: int) -> Pictures:
        """The same with at most `size` pixels along one side: a grid cannot show more than its own."""
        if self.masks.shape[-1] <= size:
            return self
        shrink = F.adaptive_avg_pool2d
        return replace(self, colours=shrink(self.colours, size), masks=shrink(self.masks, size))


def fit_volume(
    pictures: Pictures, resolution: int = 64, progress: Callable[[str, int, int], None] | None = None
) -> SurfaceField:
    """Fits surface and colours to the pictures, from the visual hull on a coarse grid to `resolution` points.

    The opacity of a step along a ray is that of NeuS (Wang et al. 2021, Eq. 13), which puts the surface of a
    silhouette where the distance is zero. Losses: masks and colours on white, both robust because generated
    views contradict each other; the cross-entropy with what a prior says is filled, which knows of hollows that
    no silhouette shows; a gradient of length 1 and little bending of the distance; smooth colours.

    Args:
        pictures: the views, at least one with something on it.
        resolution: grid points along one side.
        progress: told ("surface", steps done, steps in all).
    """
    levels = sorted({min(COARSEST, resolution), resolution})
    volume = visual_hull(pictures.at_most(levels[0]), levels[0])
    for index, level in enumerate(levels):

        def report(step: int, done: int = index * STEPS) -> None:
            if progress is not None:
                progress("surface", done + step, len(levels) * STEPS)

        volume = _fit(_resized(volume, level), pictures.at_most(level), report)
    return volume


def visual_hull(pictures: Pictures, resolution: int) -> SurfaceField:
    """The distance to what nearly all views see as the object, in the mean colour of the object.

    Nearly all, because one generated view that is wrong would otherwise carve away what the others show; where
    no point has so many votes, those that have the most.
    """
    points = grid_points(resolution).reshape(-1, 3)
    votes = torch.zeros(len(points))
    for mask, camera, weight in zip(pictures.masks, pictures.cameras, pictures.weights, strict=True):
        seen = F.grid_sample(mask[None, None], _seen_at(points, camera), align_corners=False).flatten()
        votes += weight * (seen > 0.5)
    needed = min(AGREEMENT * len(pictures.masks), float(votes.max()))
    inside = (votes >= needed).reshape((resolution,) * 3).numpy()
    distance = distance_transform_edt(~inside) - distance_transform_edt(inside)
    share = pictures.masks / pictures.masks.sum()
    colour = torch.einsum("vchw,vhw->c", pictures.colours, share)
    return SurfaceField(torch.from_numpy(distance).float(), colour.expand(*inside.shape, 3))


def _seen_at(points: Tensor, camera: Tensor) -> Tensor:
    """Where a camera sees points (P, 3): (1, 1, P, 2) as `grid_sample` takes it."""
    position, right, up, forward = camera_axes(camera)
    ray = points - position
    depth = math.tan(FIELD_OF_VIEW / 2) * (ray @ forward)
    return torch.stack([ray @ right / depth, -(ray @ up) / depth], -1)[None, None]


def _resized(volume: SurfaceField, resolution: int) -> SurfaceField:
    scale = (resolution - 1) / (len(volume.distance) - 1)
    colour = _resize(volume.colour.movedim(-1, 0), resolution).movedim(0, -1)
    return SurfaceField(scale * _resize(volume.distance[None], resolution)[0], colour)


def _resize(grid: Tensor, resolution: int) -> Tensor:
    """A grid (C, N, N, N) with so many points along each side, between the same ends."""
    return F.interpolate(grid[None], (resolution,) * 3, mode="trilinear", align_corners=True)[0]


@dataclass(frozen=True)
class _Rays:
    """Rays in steps of one voxel, M of them in all, in order, and the pixels that R rays belong to.

    Attributes:
        weights: of the M samples on the N^3 grid points, sparse.
        ray: (M,) which ray a sample lies on, ascending.
        first: (R,) the first sample of each ray.
        colours: (R, 3) of the pixels.
        masks: (R,).
        trust: (R,) weights of the rays with sum 1.
    """

    weights: _Interpolation
    ray: Tensor
    first: Tensor
    colours: Tensor
    masks: Tensor
    trust: Tensor


class _Interpolation:
    """A sparse matrix (M, P) with the same number of entries in each row, and its transpose by rows."""

    def __init__(self, corners: Tensor, shares: Tensor, points: int) -> None:
        self.corners, self.shares = corners, shares
        rows = range(0, corners.numel() + 1, corners.shape[1])
        entries = (shares.flatten().numpy(), corners.flatten().numpy(), rows)
        transposed = csr_array(entries, shape=(len(corners), points)).tocsc()
        self.samples = torch.from_numpy(transposed.indices).long()
        self.starts = torch.from_numpy(transposed.indptr[:-1]).long()
        self.values = torch.from_numpy(transposed.data)


class _Sample(torch.autograd.Function):
    """Values (M, C) of a field (P, C) at the samples, and the gradient of the field."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, weights: _Interpolation) -> Tensor:
        ctx.weights = weights
        return F.embedding_bag(weights.corners, field, per_sample_weights=weights.shares, mode="sum")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        w = ctx.weights
        bags = (w.samples, gradient.contiguous(), w.starts)
        return F.embedding_bag(*bags, per_sample_weights=w.values, mode="sum"), None


def _cast(distance: Tensor, pictures: Pictures) -> _Rays:
    """The rays of all pixels, where they come near the surface."""
    count, size = len(distance), pictures.masks.shape[-1]
    voxel = 2 * EXTENT / (count - 1)
    near = ((distance < OUTSIDE) & (distance > -INSIDE)).flatten()
    across, upwards = (tangent.flatten()[:, None].float() for tangent in pixel_grid(size))
    offsets = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    strides = torch.tensor([count * count, count, 1])
    steps = torch.arange(math.ceil(2 * EXTENT / voxel)) * voxel - EXTENT
    corners, shares, rays = [], [], []
    for view, camera in enumerate(pictures.cameras):
        position, right, up, forward = camera_axes(camera)
        direction = F.normalize(across * right + upwards * up + forward, dim=-1)
        points = position + (position.norm() + steps)[:, None] * direction[:, None]
        points = (points + EXTENT).div_(voxel)
        within = ((points >= 0) & (points < count - 1)).all(-1)
        ray = torch.arange(len(direction))[:, None].expand_as(within)[within]
        points = points[within]
        kept = near[(points.round().long() * strides).sum(-1)]
        points, ray = points[kept], ray[kept]
        floor = points.long()
        part = points - floor
        corners.append(((floor[:, None] + offsets) * strides).sum(-1))
        shares.append(torch.where(offsets.bool(), part[:, None], 1 - part[:, None]).prod(-1))
        rays.append(ray + view * size * size)
    ray, samples = torch.cat(rays).unique_consecutive(return_inverse=True)
    first = torch.cat([samples.new_zeros(1), 1 + samples.diff().nonzero()[:, 0]])
    weights = _Interpolation(torch.cat(corners), torch.cat(shares), count**3)
    trust = pictures.weights.repeat_interleave(size * size)[ray]
    colours = pictures.colours.movedim(1, -1).reshape(-1, 3)[ray]
    return _Rays(weights, samples, first, colours, pictures.masks.flatten()[ray], trust / trust.sum())


def _fit(volume: SurfaceField, pictures: Pictures, report: Callable[[int], None]) -> SurfaceField:
    """Moves the field of one level by Adam, while its surface gets sharper."""
    rays = _cast(volume.distance, pictures)
    shape = volume.distance.shape
    distance = volume.distance.flatten()[:, None].clone().requires_grad_()
    colour = volume.colour.reshape(-1, 3).clone().requires_grad_()
    near = (volume.distance.abs() < OUTSIDE)[1:-1, 1:-1, 1:-1]
    groups = [{"params": [distance], "lr": RATES[0]}, {"params": [colour], "lr": RATES[1]}]
    filled = None if pictures.filled is None else _resize(pictures.filled[None], len(volume.distance))[0]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    for step in range(STEPS):
        width = WIDTHS[0] * (WIDTHS[1] / WIDTHS[0]) ** (step / (STEPS - 1))
        mask, seen = _render(torch.cat([distance, colour], 1), rays, width)
        losses = MASK * robust(mask - rays.masks) + robust(seen - rays.colours).mean(-1)
        loss = (rays.trust * losses).sum()
        loss = loss + _roughness(distance.reshape(shape), colour.reshape(*shape, 3), near)
        if filled is not None:
            inside = torch.sigmoid(-distance.reshape(shape))
            loss = loss + FILLED * F.binary_cross_entropy(inside, filled)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step + 1)
    return SurfaceField(distance.detach().reshape(shape), colour.detach().reshape(*shape, 3).clamp(0, 1))


def _render(field: Tensor, rays: _Rays, width: float) -> tuple[Tensor, Tensor]:
    """Masks (R,) and colours on white (R, 3) of the rays through a field (P, 4) of distance and colour."""
    samples = _Sample.apply(field, rays.weights)
    # log of the share of the surface's profile that is still ahead; it falls where a ray goes in (NeuS, Eq. 13)
    ahead = F.logsigmoid(samples[:, 0] / width)
    before = F.pad(ahead[:-1], (1, 0)).index_fill(0, rays.first, 0)
    thickness = F.relu(before - ahead).double()  # float32 would lose the thin end of a sum over all rays
    behind = thickness.cumsum(0)
    start = (behind - thickness)[rays.first]
    passed = behind - thickness - start[rays.ray]
    share = (torch.exp(-passed) * -torch.expm1(-thickness)).float()
    total = torch.zeros(len(rays.first), 4)
    summed = total.index_add(0, rays.ray, share[:, None] * F.pad(samples[:, 1:], (0, 1), value=1))
    mask = summed[:, 3]
    return mask, summed[:, :3] + (1 - mask)[:, None]


def robust(residual: Tensor) -> Tensor:
    """Charbonnier's loss of residuals of any shape, linear far above `SOFTNESS`."""
    return (residual**2 + SOFTNESS**2).sqrt() - SOFTNESS


def _roughness(distance: Tensor, colour: Tensor, near: Tensor) -> Tensor:
    """What the field must pay for at points near the surface, `near` (N - 2, N - 2, N - 2)."""
    gradient = torch.stack(torch.gradient(distance), -1)[1:-1, 1:-1, 1:-1][near]
    eikonal = (gradient.norm(dim=-1) - 1).square().mean()
    bending = _laplacian(distance[..., None])[near].square().mean()
    return EIKONAL * eikonal + BENDING * bending + COLOUR * _laplacian(colour)[near].square().mean()


def _laplacian(field: Tensor) -> Tensor:
    """(N - 2, N - 2, N - 2, C) of a field (N, N, N, C)."""
    inner = slice(1, -1)
    total = -6 * field[inner, inner, inner]
    for low in (slice(None, -2), slice(2, None)):
        total = total + field[low, inner, inner] + field[inner, low, inner] + field[inner, inner, low]
    return total
