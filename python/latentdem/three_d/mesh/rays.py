"""Rays of views through a dense grid, sampled near a surface by one product with a sparse matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from ..geometry.cameras import EXTENT, camera_axes, pixel_grid
from .hull import PosedViews

OUTSIDE, INSIDE = 3.0, 6.0  # voxels before and behind the surface in which rays are sampled


@dataclass(frozen=True)
class Rays:
    """Samples on R rays in steps of one voxel, M of them in all, and the pixels that the rays belong to.

    Attributes:
        weights: interpolation from the N^3 grid points to the M samples, sparse.
        ray: (M,) index of the ray of each sample, ascending.
        first: (R,) index of the first sample of each ray.
        colours: (R, 3) colours of the pixels, in [0, 1].
        masks: (R,) share of the pixels that the object covers.
        ray_weights: (R,) weights of the rays, with sum 1.
    """

    weights: Interpolation
    ray: Tensor
    first: Tensor
    colours: Tensor
    masks: Tensor
    ray_weights: Tensor


class Interpolation:
    """A sparse matrix (M, P) with the same number of entries in each row, and its transpose by rows."""

    def __init__(self, corners: Tensor, shares: Tensor, points: int) -> None:
        self.corners, self.shares = corners, shares
        rows = range(0, corners.numel() + 1, corners.shape[1])
        entries = (shares.flatten().numpy(), corners.flatten().numpy(), rows)
        transposed = csr_array(entries, shape=(len(corners), points)).tocsc()
        self.samples = torch.from_numpy(transposed.indices).long()
        self.starts = torch.from_numpy(transposed.indptr[:-1]).long()
        self.values = torch.from_numpy(transposed.data)


class Sample(torch.autograd.Function):
    """Values (M, C) of a field (P, C) at the samples, differentiable in the field."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, weights: Interpolation) -> Tensor:
        ctx.weights = weights
        return F.embedding_bag(weights.corners, field, per_sample_weights=weights.shares, mode="sum")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        w = ctx.weights
        bags = (w.samples, gradient.contiguous(), w.starts)
        return F.embedding_bag(*bags, per_sample_weights=w.values, mode="sum"), None


def cast_rays(distance: Tensor, views: PosedViews) -> Rays:
    """Rays of all pixels that come near the surface of a field with these signed distances (N, N, N)."""
    count, size = len(distance), views.masks.shape[-1]
    voxel = 2 * EXTENT / (count - 1)
    near = ((distance < OUTSIDE) & (distance > -INSIDE)).flatten()
    across, upwards = (tangent.flatten()[:, None].float() for tangent in pixel_grid(size))
    offsets = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    strides = torch.tensor([count * count, count, 1])
    steps = torch.arange(math.ceil(2 * EXTENT / voxel)) * voxel - EXTENT
    corners, shares, rays = [], [], []
    for view, camera in enumerate(views.cameras):
        position, right, up, forward = camera_axes(camera)
        direction = F.normalize(across * right + upwards * up + forward, dim=-1)
        points = position + (position.norm() + steps)[:, None] * direction[:, None]
        points = (points + EXTENT).div_(voxel)
        within = ((points >= 0) & (points < count - 1)).all(-1)
        ray = torch.arange(len(direction))[:, None].expand_as(within)[within]
        points = points[within]
        sampled = near[(points.round().long() * strides).sum(-1)]
        points, ray = points[sampled], ray[sampled]
        floor = points.long()
        part = points - floor
        corners.append(((floor[:, None] + offsets) * strides).sum(-1))
        shares.append(torch.where(offsets.bool(), part[:, None], 1 - part[:, None]).prod(-1))
        rays.append(ray + view * size * size)
    ray, samples = torch.cat(rays).unique_consecutive(return_inverse=True)
    first = torch.cat([samples.new_zeros(1), 1 + samples.diff().nonzero()[:, 0]])
    weights = Interpolation(torch.cat(corners), torch.cat(shares), count**3)
    ray_weights = views.weights.repeat_interleave(size * size)[ray]
    colours = views.colours.movedim(1, -1).reshape(-1, 3)[ray]
    masks = views.masks.flatten()[ray]
    return Rays(weights, samples, first, colours, masks, ray_weights / ray_weights.sum())
