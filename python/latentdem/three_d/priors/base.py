"""What the pose-free reconstruction asks of a view-conditioned prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError
from ..cameras import POLAR_RANGE


@dataclass(frozen=True)
class ViewCondition:
    """What a prior keeps of N known views, computed once for all timesteps and poses.

    Attributes:
        parts: tensors whose first dimension counts the views; what they hold is the prior's own affair.
        polar: (N,) polar angles of their cameras, for a prior whose predictions depend on them, as it estimates
            them from each view alone; None for others.
        principal: (N, 2) principal points of the same (see cameras.py), where the views are crops around
            something else than the origin; None where this is known to be in their middle.
    """

    parts: tuple[Tensor, ...]
    polar: Tensor | None = None
    principal: Tensor | None = None

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: Tensor | slice) -> ViewCondition:
        """The views at `index`, also several times each, as for several hypotheses of one view."""
        parts = tuple(part[index] for part in self.parts)
        told = (None if each is None else each[index] for each in (self.polar, self.principal))
        return ViewCondition(parts, *told)

    def at(self, cameras: Tensor) -> ViewCondition:
        """The same with the polar angles, if it has any, and principal points of cameras (N, 3) or (N, 5)."""
        if self.polar is None:
            return self
        return replace(self, polar=cameras[:, 0], principal=cameras[:, 3:] if cameras.shape[1] > 3 else None)

    def cropped(self) -> ViewCondition:
        """The same, of views whose principal points are open, if the prior estimates polar angles."""
        return self if self.polar is None else replace(self, principal=self.polar.new_zeros(len(self), 2))

    def cameras(self, poses: Tensor, views: Tensor) -> Tensor:
        """Cameras (..., m, 3) of m views in these poses, up to a common azimuth and distance.

        Where the prior estimates polar angles, they are those that agree best with all m estimates; relative
        poses leave them open, and elsewhere they count from that of the reference. So are principal points,
        (..., m, 5), where these are open.

        Args:
            poses: (..., m, 3) or (..., m, 5) relative to a reference.
            views: (m,) which views they are of.
        """
        if self.polar is None:
            return poses
        reference = (self.polar[views] - poses[..., 0]).mean(-1, keepdim=True).clamp(*POLAR_RANGE)
        poses = poses + F.pad(reference[..., None], (0, poses.shape[-1] - 1))
        if self.principal is None:
            return poses
        poses = F.pad(poses, (0, 5 - poses.shape[-1]))
        middle = (self.principal[views] - poses[..., 3:]).mean(-2, keepdim=True)
        return poses + F.pad(middle, (3, 0))


def joined(conditions: Sequence[ViewCondition]) -> ViewCondition:
    """All views of all conditions of one prior."""
    parts = tuple(map(torch.cat, zip(*(condition.parts for condition in conditions), strict=True)))
    polars = [condition.polar for condition in conditions if condition.polar is not None]
    principals = [condition.principal for condition in conditions if condition.principal is not None]
    return ViewCondition(parts, *(torch.cat(told) if told else None for told in (polars, principals)))


@dataclass(frozen=True)
class PosedCondition:
    """What a prior keeps of B known views and of the poses of B wanted ones, computed once for all timesteps.

    Attributes:
        parts: tensors, differentiable in the poses; what they hold is the prior's own affair.
        variance: (B, 1, h, w), or with 1 for h and w, how uncertain the known views leave each pixel of the
            wanted latents, without `mean` up to a common factor. Views are weighed by it where they are fused.
        mean: (B, c, h, w) the wanted latents as they are foretold without any noise, for a prior that does so;
            None for others.
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

    Images are (B, 3, S, S) in [-1, 1] on a white ground, S = `image_size`; latents (B, c, h, w) of
    `latent_shape`. A pose is (polar, azimuth, radius) of the wanted camera less that of the known view,
    angles in radians (see cameras.py).

    Attributes:
        alphas_cumprod: (T,) cumulative alphas of the training schedule.
        image_size: S.
        latent_shape: (c, h, w).
        temperature: of the noise that views should begin with, 1 for samples of the prior.
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

    def framing(self, x: Tensor) -> Tensor | None:
        """Cameras (N, 5) of crops `x` (N, 3, S, S) of objects, less the usual distance and at azimuth 0.

        With principal points, see cameras.py: estimates of where the crops show the point that is in the middle
        of what the prior was trained on. None from a prior that does not say.
        """
        ...

    def condition(self, x: Tensor) -> ViewCondition:
        """What to keep of the known views `x` (N, 3, S, S)."""
        ...

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """The same n known views where what they say of the object agrees, and with what each of them shows.

        Args:
            condition: n known views.
            poses: (n, 3) of these relative to the first.
        """
        ...

    def bundle(self, condition: ViewCondition, cameras: Tensor, radius: bool) -> Tensor:
        """Cameras (n, 3) of n known views moved together with what is known of the object's shape.

        Args:
            condition: n known views.
            cameras: (n, 3) of these, as `ViewCondition.cameras` gives them.
            radius: whether distances move, too.
        """
        ...

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> Tensor | None:
        """How likely the object is at points of the world, in [0, 1], or None from a prior that does not say.

        Args:
            condition: n known views.
            poses: (n, 3) of these relative to the first, which is at azimuth 0 and the distance `RADIUS`.
            points: (..., 3), see cameras.py.
        """
        ...

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """What to keep for the views from given cameras, differentiable in their poses.

        Args:
            condition: B known views.
            pose: (B, 3) of the wanted views relative to these.
            together: n; every n rows that follow each other are known views of one object, for one wanted view,
                and a prior that can may let each of them know of the others.
        """
        ...

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """The predicted noise in `z_t` (B, c, h, w) at timestep `t`, same shape, differentiable in the pose.

        Args:
            z_t: noisy latents of the wanted views.
            t: timestep of all of them.
            posed: B known views and poses, one for each row of `z_t`.
        """
        ...


def check_views(x: Tensor, size: int) -> None:
    """Raises a UserError unless `x` is (B, 3, size, size)."""
    if x.ndim != 4 or tuple(x.shape[1:]) != (3, size, size):
        raise UserError(
            f"This prior takes images of the shape (B, 3, {size}, {size}), not {tuple(x.shape)}; resize them."
        )


def equal_variance(pose: Tensor) -> Tensor:
    """Ones (B, 1, 1, 1) for poses (B, 3), the `variance` of a prior that does not say."""
    return pose.new_ones(len(pose), 1, 1, 1)
