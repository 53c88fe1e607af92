"""Candidate cameras of the known views: which there are, which of them differ, and which views are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..poses import angle_between

GRID_AZIMUTHS = 24
GRID_POLARS = (-50.0, -25.0, 0.0, 25.0, 50.0)  # degrees
APART = math.radians(40)  # hypotheses nearer to each other than this are one
RIVALS = 3  # other places of a view, the likeliest, that its pose is compared with


def grid() -> Tensor:
    """Candidate poses (G, 3), float32."""
    polar = torch.deg2rad(torch.tensor(GRID_POLARS))
    azimuth = torch.arange(GRID_AZIMUTHS) * (2 * math.pi / GRID_AZIMUTHS) - math.pi
    rows = torch.cartesian_prod(polar, azimuth)
    return torch.cat([rows, torch.zeros(len(rows), 1)], dim=1)


def around(cameras: Tensor) -> Tensor:
    """Sets of cameras (GRID_AZIMUTHS, m, 3), `cameras` (m, 3) with the last one turned around the object."""
    sets = cameras.repeat(GRID_AZIMUTHS, 1, 1)
    sets[:, -1, 1] += torch.arange(GRID_AZIMUTHS, device=cameras.device) * (2 * math.pi / GRID_AZIMUTHS)
    return sets


def spread(views: list[int], cameras: Tensor) -> list[int]:
    """The first of views and two others of the first half of them, from which an object is seen best.

    Each is as far as possible from those before it.

    Args:
        views: indices, the surest first.
        cameras: (n, 3) of all views.
    """
    chosen, sure = views[:1], views[1 : max(3, len(views) // 2 + 1)]
    for _ in range(2):
        farthest = max(sure, key=lambda view: float(angle_between(cameras[view], cameras[chosen]).min()))
        chosen = [*chosen, farthest]
    return chosen


def edges(views: int, only: int | None = None) -> tuple[Tensor, Tensor]:
    """Pairs of views that are compared, (E,) indices each: every view with the first and the two before it.

    All pairs of up to four views; beyond, their number grows only linearly.

    Args:
        views: n.
        only: a view whose pairs alone are wanted.
    """
    pairs = [(i, j) for j in range(1, views) for i in sorted({0, max(j - 2, 0), j - 1}) if only in (None, i, j)]
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return first, second


def pairs_of(sets: Tensor, views: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs that are compared in sets of cameras (B, m, 3) of m views: (B E,), (B E,) and (B E, 2, 3)."""
    cameras = torch.stack([sets[:, first], sets[:, second]], dim=2).flatten(0, 1)
    return views[first].repeat(len(sets)), views[second].repeat(len(sets)), cameras


def distinct(sets: Tensor, losses: Tensor, near: float, most: int, worse: float = math.inf) -> Tensor:
    """Indices of the best of sets of cameras (B, m, 3), at most `most`, by their losses (B,).

    Left out is what is nearer than `near` in radians to a better one in all views, relative to the first of
    each, and what is worse than the best by more than `worse`.
    """
    poses = sets - sets[:, :1]
    kept: list[int] = []
    for i in losses.argsort(stable=True).tolist():
        if losses[i] > losses.min() + worse or len(kept) == most:
            break
        if all(angle_between(poses[i], poses[other]).amax() >= near for other in kept):
            kept.append(i)
    return torch.tensor(kept)


@dataclass(frozen=True)
class Places:
    """Where one view may be relative to the first, the best place first.

    Attributes:
        pairs: (P, 2, 3) cameras of both.
        losses: (P,) noise errors of the pair.
    """

    pairs: Tensor
    losses: Tensor

    @property
    def poses(self) -> Tensor:
        """(P, 3) relative to the first view."""
        return self.pairs[:, 1] - self.pairs[:, 0]

    @property
    def margin(self) -> float:
        """By how much the best is better than what is elsewhere."""
        elsewhere = angle_between(self.poses, self.poses[0]) >= APART / 2
        return float(self.losses[elsewhere].min() - self.losses[0]) if elsewhere.any() else math.inf

    def rivals(self, pose: Tensor) -> Tensor:
        """The likeliest poses (R, 3), at most `RIVALS`, that are not near a given one (3,)."""
        poses = self.poses[angle_between(self.poses, pose) >= APART / 2]
        return poses[:RIVALS]
