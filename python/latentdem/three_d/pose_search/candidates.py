"""Candidate poses of the known views: the initial grid, distinct subsets, and the pairs that are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.poses import angle_between

GRID_AZIMUTHS = 24
GRID_POLARS = (-50.0, -25.0, 0.0, 25.0, 50.0)  # degrees
APART = math.radians(40)  # smallest distance between two hypotheses
MAX_ALTERNATIVES = 3  # most likely other poses of a view that its pose is compared with


def pose_grid() -> Tensor:
    """Candidate poses (G, 3) relative to the first view, float32."""
    polar = torch.deg2rad(torch.tensor(GRID_POLARS))
    azimuth = torch.arange(GRID_AZIMUTHS) * (2 * math.pi / GRID_AZIMUTHS) - math.pi
    rows = torch.cartesian_prod(polar, azimuth)
    return torch.cat([rows, torch.zeros(len(rows), 1)], dim=1)


def turn_last(cameras: Tensor) -> Tensor:
    """Sets of cameras (GRID_AZIMUTHS, m, 3): `cameras` (m, 3) with the last one at all azimuths of the grid."""
    sets = cameras.repeat(GRID_AZIMUTHS, 1, 1)
    sets[:, -1, 1] += torch.arange(GRID_AZIMUTHS, device=cameras.device) * (2 * math.pi / GRID_AZIMUTHS)
    return sets


def spread_out(views: list[int], cameras: Tensor) -> list[int]:
    """The first of `views` and two others of the more certain half that see the object from different sides.

    Each one is as far as possible from those chosen before it.

    Args:
        views: indices, the most certain view first.
        cameras: (n, 3) cameras of all views.
    """
    chosen, certain = views[:1], views[1 : max(3, len(views) // 2 + 1)]
    for _ in range(2):
        farthest = max(certain, key=lambda view: float(angle_between(cameras[view], cameras[chosen]).min()))
        chosen = [*chosen, farthest]
    return chosen


def compared_pairs(views: int, only: int | None = None) -> tuple[Tensor, Tensor]:
    """Indices (E,) and (E,) of the pairs of views that are compared: each with the first and the previous two.

    These are all pairs of up to four views; beyond that, their number grows only linearly.

    Args:
        views: number of views n.
        only: a view; pairs without it are left out.
    """
    pairs = [(i, j) for j in range(1, views) for i in sorted({0, max(j - 2, 0), j - 1}) if only in (None, i, j)]
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return first, second


def pairs_in(sets: Tensor, views: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views (B E,) and (B E,) and cameras (B E, 2, 3) of all pairs in sets of cameras (B, m, 3) of m views."""
    cameras = torch.stack([sets[:, first], sets[:, second]], dim=2).flatten(0, 1)
    return views[first].repeat(len(sets)), views[second].repeat(len(sets)), cameras


def distinct(sets: Tensor, losses: Tensor, near: float, most: int, worse: float = math.inf) -> Tensor:
    """Indices of the best distinct sets of cameras, the best first.

    Args:
        sets: (B, m, 3) cameras.
        losses: (B,) losses of the sets.
        near: radians; a set is left out if all its poses relative to its first camera are nearer than this to
            those of a better set.
        most: largest number of indices.
        worse: sets whose loss exceeds the least one by more than this are left out.
    """
    poses = sets - sets[:, :1]
    chosen: list[int] = []
    for i in losses.argsort(stable=True).tolist():
        if losses[i] > losses.min() + worse or len(chosen) == most:
            break
        if all(angle_between(poses[i], poses[other]).amax() >= near for other in chosen):
            chosen.append(i)
    return torch.tensor(chosen)


@dataclass(frozen=True)
class PairCandidates:
    """Candidate cameras of the first view and another one, the best first.

    Attributes:
        pairs: (P, 2, 3) cameras of both views.
        losses: (P,) noise errors of the pairs.
    """

    pairs: Tensor
    losses: Tensor

    @property
    def poses(self) -> Tensor:
        """Poses (P, 3) of the other view relative to the first."""
        return self.pairs[:, 1] - self.pairs[:, 0]

    @property
    def margin(self) -> float:
        """Loss of the best candidate that is far from the first one, less the loss of the first one."""
        far = angle_between(self.poses, self.poses[0]) >= APART / 2
        return float(self.losses[far].min() - self.losses[0]) if far.any() else math.inf

    def alternatives(self, pose: Tensor) -> Tensor:
        """The best poses (R, 3), at most `MAX_ALTERNATIVES`, that are far from a given one (3,)."""
        poses = self.poses[angle_between(self.poses, pose) >= APART / 2]
        return poses[:MAX_ALTERNATIVES]
