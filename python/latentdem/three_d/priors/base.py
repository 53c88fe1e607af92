"""Interface of view-conditioned priors, and what they keep of known views and poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ..geometry.cameras import POLAR_RANGE

MAX_BATCH = 64  # rows of one call of a prior, whatever the number of views and hypotheses


@dataclass(frozen=True)
class ViewCondition:
    """Features of N known views that a prior computes once for all timesteps and poses.

    Attributes:
        parts: tensors whose first dimension counts the views; their content is up to the prior.
        polar: (N,) polar angles of the cameras, for a prior whose predictions depend on them, initially as it
            estimates them from each view alone; None for other priors.
        principal: (N, 2) principal points of the cameras (see cameras.py), if the views are crops around
            unknown points; None if the origin is known to be in the middle.
        deviation: (N, 5) standard deviations of the errors of the cameras that a prior estimates (see
            cameras.py; that of the azimuth is 0), as it estimates them from each view; None if it does not.
    """

    parts: tuple[Tensor, ...]
    polar: Tensor | None = None
    principal: Tensor | None = None
    deviation: Tensor | None = None

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: Tensor | slice) -> ViewCondition:
        """The views at `index`; a view may be repeated, for instance for several hypotheses."""
        parts = tuple(part[index] for part in self.parts)
        cameras = (self.polar, self.principal, self.deviation)
        return ViewCondition(parts, *(None if part is None else part[index] for part in cameras))

    def at(self, cameras: Tensor) -> ViewCondition:
        """The same at the polar angles and principal points of cameras (N, 3) or (N, 5), if it has any."""
        if self.polar is None:
            return self
        return replace(self, polar=cameras[:, 0], principal=cameras[:, 3:] if cameras.shape[1] > 3 else None)

    def cropped(self) -> ViewCondition:
        """The same with unknown principal points, initially 0, if the prior estimates polar angles."""
        return self if self.polar is None else replace(self, principal=self.polar.new_zeros(len(self), 2))

    def cameras(self, poses: Tensor, views: Tensor) -> Tensor:
        """Cameras (..., m, 3) of m views in these poses, up to a common azimuth and distance.

        Relative poses do not determine the polar angles. If the prior estimates them, they are those that agree
        best with all m estimates, weighted by inverse variances; otherwise they are relative to that of the
        reference. The same holds, without weights, for unknown principal points, with which cameras are
        (..., m, 5).

        Args:
            poses: (..., m, 3) or (..., m, 5) poses relative to a reference.
            views: (m,) indices of the views.
        """
        if self.polar is None:
            return poses
        deviation = torch.ones_like(self.polar) if self.deviation is None else self.deviation[:, 0]
        weights = deviation[views].pow(-2)
        weights = weights / weights.sum()
        reference = ((self.polar[views] - poses[..., 0]) * weights).sum(-1, keepdim=True).clamp(*POLAR_RANGE)
        poses = poses + F.pad(reference[..., None], (0, poses.shape[-1] - 1))
        if self.principal is None:
            return poses
        poses = F.pad(poses, (0, 5 - poses.shape[-1]))
        middle = (self.principal[views] - poses[..., 3:]).mean(-2, keepdim=True)
        return poses + F.pad(middle, (3, 0))


def concatenate(conditions: Sequence[ViewCondition]) -> ViewCondition:
    """All views of several conditions of one prior."""
    parts = tuple(map(torch.cat, zip(*(condition.parts for condition in conditions), strict=True)))
    cameras = (
        [part for condition in conditions if (part := getattr(condition, name)) is not None]
        for name in ("polar", "principal", "deviation")
    )
    return ViewCondition(parts, *(torch.cat(rows) if rows else None for rows in cameras))


@dataclass(frozen=True)
class PosedCondition:
    """Features of B known views and the poses of B target views, computed once for all timesteps.

    Attributes:
        parts: tensors, differentiable in the poses; their content is up to the prior.
        variance: (B, 1, h, w) or (B, 1, 1, 1) variance of each pixel of the target latents given the known
            view; up to a common factor if `mean` is None. It determines the weights of fused views.
        mean: (B, c, h, w) prediction of the target latents without noise, if the prior makes one; otherwise
            None.
    """

    parts: tuple[Tensor, ...]
    variance: Tensor
    mean: Tensor | None = None

    def __getitem__(self, index: Tensor) -> PosedCondition:
        """The rows at `index`."""
        parts = tuple(part[index] for part in self.parts)
        return PosedCondition(parts, self.variance[index], None if self.mean is None else self.mean[index])


@runtime_checkable
class ViewPrior(Protocol):
    """A latent diffusion model of a view of an object, given another view and their relative pose.

    Images are (B, 3, S, S) in [-1, 1] on a white background, S = `image_size`; latents are (B, c, h, w) of
    `latent_shape`. A pose is (polar, azimuth, radius) of the target camera less that of the known view, with
    angles in radians (see cameras.py).

    Attributes:
        alphas_cumprod: (T,) cumulative alphas of the training schedule.
        image_size: S.
        latent_shape: (c, h, w).
        temperature: standard deviation of the initial noise of views; 1 for samples of the prior, less for
            views nearer to the mean.
    """

    alphas_cumprod: Tensor
    temperature: float
    image_size: int
    latent_shape: tuple[int, int, int]

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, c, h, w) of images `x` (B, 3, S, S)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents `z`, not clamped."""
        ...

    def framing(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Estimated cameras (N, 5) of views or crops `x` (N, 3, S, S), less `RADIUS` and at azimuth 0.

        Their principal points (see cameras.py) are where the crops show the point that is in the middle of the
        training images. The standard deviations (N, 5) of their errors follow. None for a prior that makes no
        such estimate.
        """
        ...

    def condition(self, x: Tensor) -> ViewCondition:
        """Features of the known views `x` (N, 3, S, S)."""
        ...

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """Features of n known views made consistent with each other and with what each view shows.

        Args:
            condition: n known views.
            poses: (n, 3) poses of the views relative to the first.
        """
        ...

    def bundle(self, condition: ViewCondition, cameras: Tensor, radius: bool) -> Tensor:
        """Cameras (n, 3) of n known views, optimised jointly with the shape of the object (bundle adjustment).

        Args:
            condition: n known views.
            cameras: (n, 3) initial cameras, as returned by `ViewCondition.cameras`.
            radius: whether distances are optimised, too.
        """
        ...

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> Tensor | None:
        """Probability in [0, 1] that the object is at points of the world; None if it is not predicted.

        Args:
            condition: n known views.
            poses: (n, 3) poses of the views relative to the first, which is at azimuth 0 and distance `RADIUS`.
            points: (..., 3) points, see cameras.py.
        """
        ...

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """Features of target views from given cameras, differentiable in their poses.

        Args:
            condition: B known views.
            pose: (B, 3) poses of the target views relative to the known ones.
            together: number n; every n consecutive rows are known views of one object for one target view, and
                a prior may condition each of them on the others.
        """
        ...

    def score(self, posed: PosedCondition, z: Tensor) -> Tensor | None:
        """Scores (B,) of poses, the higher the likelier; None for a prior that has no network for them.

        The softmax of the scores of several poses of one pair, summed over both directions, is the probability
        of each, see `PoseScorer`.

        Args:
            posed: features of B known views and poses.
            z: (B, c, h, w) latents of the real views at these poses.
        """
        ...

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """The predicted noise in `z_t` (B, c, h, w) at timestep `t`, same shape, differentiable in the pose.

        Args:
            z_t: noisy latents of the target views.
            t: timestep of all rows.
            posed: features of B known views and poses, one for each row of `z_t`.
        """
        ...


def check_views(x: Tensor, size: int) -> None:
    """Raises a UserError unless `x` is (B, 3, size, size)."""
    if x.ndim != 4 or tuple(x.shape[1:]) != (3, size, size):
        raise UserError(
            f"This prior takes images of the shape (B, 3, {size}, {size}), not {tuple(x.shape)}; resize them."
        )


def equal_variance(pose: Tensor) -> Tensor:
    """Ones (B, 1, 1, 1) for poses (B, 3), the `variance` of a prior that does not predict it."""
    return pose.new_ones(len(pose), 1, 1, 1)
