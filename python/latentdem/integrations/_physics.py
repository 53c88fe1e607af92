"""A physics of deepinv as an operator of the solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import deepinv
import torch
from torch import Tensor

from ..errors import UserError
from ..io.channels import from_rgb
from ..operators import Parameter, Parametric
from ..operators.least_squares import conjugate_gradients
from ..priors.base import LatentPrior
from ..restoration.parametric import FINAL, ParametricRestoration
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, Pass


class PhysicsOperator(Parametric):
    """A known physics on images (B, 3, H, W) in [-1, 1], its measurements flattened to (B, 1, 1, m).

    A linear physics stays linear: A((x + 1) / 2) = y is equivalent to A x = 2 y - A 1.

    Args:
        physics: the forward model of deepinv.
        like: (B, C, H, W), an image it takes, C = 1 or 3. A grey image is the mean of the three channels.
        y: (B, ...) a measurement it returns.
    """

    parameters: dict[str, Parameter] = {}  # noqa: RUF012

    def __init__(self, physics: Any, like: Tensor, y: Tensor) -> None:
        self.physics, self._like, self._shape, self._device = physics, like.shape, y.shape, y.device
        self.linear = isinstance(physics, deepinv.physics.LinearPhysics)
        circular = getattr(physics, "padding", "circular") == "circular"
        self._closed = isinstance(physics, deepinv.physics.DecomposablePhysics) or (
            type(physics) is deepinv.physics.Downsampling and circular
        )

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        """A x, or A((x + 1) / 2) where A is not linear; (B, 1, 1, m)."""
        image = self._own_channels(x if self.linear else (x + 1) / 2)
        return self._run(self.physics.A, image).reshape(len(x), 1, 1, -1)

    def image_size(self, y: Tensor) -> tuple[int, int]:
        """(H, W) of the images."""
        return self._like[-2], self._like[-1]

    def adjoint(self, gap: Tensor, x: Tensor, parameters: Tensor) -> Tensor:
        """A^T `gap`, by the physics itself where it is linear."""
        if not self.linear:
            return super().adjoint(gap, x, parameters)
        image = self._run(self.physics.A_adjoint, self._shaped(gap))
        return image if self._like[1] == 3 else image.expand(-1, 3, -1, -1) / 3

    def proximal(self, x0: Tensor, parameters: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """argmin_x ||y - A x||^2 + rho ||x - x0||^2, rho (B,): closed form or conjugate gradients."""
        if not self.linear:
            return super().proximal(x0, parameters, y, rho, iterations)
        weight = rho.view(-1, 1, 1, 1)
        if self._closed:
            # A change of the mean by d changes all three channels by d.
            before, weight = self._own_channels(x0), weight * (3 / self._like[1])
            return x0 + self._run(self.physics.prox_l2, before, self._shaped(y), 1 / weight) - before

        def normal(v: Tensor) -> Tensor:
            return self.adjoint(self(v, parameters), v, parameters) + weight * v

        gap = y - self(x0, parameters)
        return x0 + conjugate_gradients(normal, self.adjoint(gap, x0, parameters), iterations)

    def _shaped(self, y: Tensor) -> Tensor:
        return y.reshape(len(y), *self._shape[1:])

    def _own_channels(self, x: Tensor) -> Tensor:
        return from_rgb(x, self._like[1])

    def _run(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Applies a function of the physics to tensors (B S, ...), B at a time, on the device of the physics.

        The physics may have parameters for each of its B images, while S posterior samples come at once.
        """
        batch, device = self._shape[0], tensors[0].device
        samples = len(tensors[0]) // batch if batch > 1 else 1
        parts = zip(*(t.to(self._device).unflatten(0, (-1, samples)).unbind(1) for t in tensors), strict=True)
        return torch.stack([function(*part) for part in parts], 1).flatten(0, 1).to(device)


@dataclass(frozen=True)
class PhysicsMeasurement:
    """A measurement in the form that the solver takes.

    Attributes:
        operator: forward operator.
        y: (B, 1, 1, m) measurement of images in [-1, 1].
        channels: number of channels of the images, 1 or 3.
        scale: factor from the noise of the measurement to that of `y`.
    """

    operator: PhysicsOperator
    y: Tensor
    channels: int
    scale: float


def measurement_of(physics: Any, y: Tensor) -> PhysicsMeasurement:
    """Converts a measurement `y` of a physics.

    Raises:
        UserError: `y` is not a tensor of real numbers, or its images have neither one nor three channels.
    """
    if not isinstance(y, Tensor) or y.is_complex():
        raise UserError("A measurement must be one tensor of real numbers; stacked physics are not supported.")
    linear = isinstance(physics, deepinv.physics.LinearPhysics)
    like = physics.A_adjoint(y) if linear else y
    if like.dim() != 4 or like.shape[1] not in (1, 3) or like.is_complex():
        raise UserError(f"Images have the shape (B, 1 or 3, H, W), those of this physics {tuple(like.shape)}.")
    operator = PhysicsOperator(physics, like, y)
    shifted = 2 * y - physics.A(torch.ones_like(like)) if linear else y
    return PhysicsMeasurement(
        operator, shifted.reshape(len(y), 1, 1, -1), like.shape[1], 2.0 if linear else 1.0
    )


def restore_known(
    measured: PhysicsMeasurement,
    sigma: Tensor,
    prior: LatentPrior,
    device: torch.device,
    seed: int,
    steps: int | None,
) -> Tensor:
    """Images (B, C, H, W) in [0, 1] of a measurement with noise `sigma` (B,), in the units of the physics."""
    final = FINAL if steps is None else (Pass(steps),)
    restoration = ParametricRestoration(prior, measured.operator, seed, final=final)
    y = measured.y.float().to(device)
    measurement = Measurement(y, (measured.scale * sigma).to(device))
    restored = restoration.run(measurement, measured.operator.initial(y), Hooks())
    return (from_rgb(restored.image, measured.channels) + 1) / 2
