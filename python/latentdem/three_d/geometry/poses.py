"""Relative poses: their ranges, the posterior over them, and their gradient steps in the M-step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import UserError
from .cameras import POLAR_RANGE, RADIUS_RANGE, wrap

# Cameras are upright, so a polar angle ends at a pole, whereas an azimuth wraps around.
POLAR_LIMIT = POLAR_RANGE[1] - POLAR_RANGE[0]
RADIUS_LIMIT = RADIUS_RANGE[1] - RADIUS_RANGE[0]
PRINCIPAL_LIMIT = 0.2  # largest principal point, in world units: 9 of 64 pixels


def bounded(poses: Tensor) -> Tensor:
    """Relative poses (..., 3) or (..., 5), with azimuths wrapped into [-pi, pi) and the rest clamped."""
    polar, azimuth, radius, principal = poses.tensor_split([1, 2, 3], dim=-1)
    return torch.cat(
        [
            polar.clamp(-POLAR_LIMIT, POLAR_LIMIT),
            wrap(azimuth),
            radius.clamp(-RADIUS_LIMIT, RADIUS_LIMIT),
            principal.clamp(-PRINCIPAL_LIMIT, PRINCIPAL_LIMIT),
        ],
        dim=-1,
    )


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Distance (...) in radians between poses (..., C), by polar angle and azimuth together."""
    difference = first - second
    return torch.hypot(difference[..., 0], wrap(difference[..., 1]))


def ring(azimuths: int, elevations: Sequence[float]) -> Tensor:
    """Poses (len(elevations) * azimuths, 3) around the object; the first azimuth is that of view 1.

    Args:
        azimuths: number of evenly spaced azimuths at every elevation.
        elevations: degrees above the height of view 1.

    Raises:
        UserError: there is no azimuth, or an elevation is outside the range of the priors.
    """
    limit = math.degrees(POLAR_LIMIT)
    if azimuths < 1 or not elevations:
        raise UserError("At least one azimuth and one elevation are needed.")
    for elevation in elevations:
        if not abs(elevation) <= limit:
            raise UserError(
                f"The elevation {elevation:g} is out of range; give degrees above view 1, "
                f"from {-limit:.0f} to {limit:.0f}."
            )
    polar = -torch.deg2rad(torch.tensor(list(elevations), dtype=torch.float32))
    azimuth = wrap(torch.arange(azimuths) * (2 * math.pi / azimuths))
    rows = torch.cartesian_prod(polar, azimuth).reshape(-1, 2)
    return torch.cat([rows, torch.zeros(len(rows), 1)], dim=1)


@dataclass(frozen=True)
class PosePosterior:
    """Posterior over the cameras of n views: B weighted hypotheses, the most likely one first.

    Attributes:
        cameras: (B, n, 3) cameras, as returned by `ViewCondition.cameras`.
        weights: (B,) probabilities of the hypotheses, with sum 1.
        others: (n, A, 4) other poses of each view that may be right, as of a symmetric object: polar angle,
            azimuth and radius relative to the first view, and the probability, in falling order and 0 where
            there is none.
    """

    cameras: Tensor
    weights: Tensor
    others: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 4))

    @classmethod
    def certain(cls, cameras: Tensor) -> PosePosterior:
        """All probability on one hypothesis, `cameras` (n, 3)."""
        return cls(cameras[None], torch.ones(1))

    @property
    def poses(self) -> Tensor:
        """Poses (B, n, 3) relative to the first view."""
        return self.cameras - self.cameras[:, :1]


class MovingPoses:
    """Hypotheses of the cameras of n views, optimised by Adam relative to the first camera of each.

    Gradients differ by orders of magnitude between timesteps; Adam makes the steps comparable.

    Args:
        cameras: (B, n, 3), or (B, n, 5) with principal points, initial cameras; they are poses relative to
            view 1 if that of view 1 is zero.
        radius: whether the distances are optimised, too.
        first: whether the polar angle and principal point of view 1 are optimised; the other cameras move
            with them.
    """

    def __init__(self, cameras: Tensor, radius: bool = False, first: bool = False) -> None:
        self._first = cameras[:, :1].clone()
        self._unknown = cameras[:, 1:] - self._first
        self._free, self._first_free = torch.ones(2, cameras.shape[-1]).to(cameras)
        self._free[2] = float(radius)
        self._first_free[1:3] = 0
        self._first_moves = first
        self._optimizer = torch.optim.Adam([self._unknown, self._first])

    @property
    def poses(self) -> Tensor:
        """Current cameras, in the shape of the initial ones."""
        return torch.cat([self._first, self._first + self._unknown], dim=1)

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, provided that the first camera is fixed."""
        moments: dict[str, Tensor] = self._optimizer.state_dict()["state"].get(0, {})
        return {name: value.clone() for name, value in {"unknown": self._unknown, **moments}.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores a `state`."""
        self._unknown.copy_(state["unknown"])
        moments = {name: value for name, value in state.items() if name != "unknown"}
        if moments:
            self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": {0: moments}})

    def move(self, gradient: Tensor, rate: float) -> None:
        """Makes one step of `rate` radians (or world units) against `gradient`, in the shape of `poses`."""
        self._unknown.grad = gradient[:, 1:] * self._free
        if self._first_moves:
            self._first.grad = gradient.sum(1, keepdim=True) * self._first_free
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._unknown.copy_(bounded(self._unknown))
        if self._first_moves:
            self._first[..., 0].clamp_(*POLAR_RANGE)
