"""Least squares of any operator in the image: conjugate gradients, and Gauss-Newton where it is not linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

NEWTON_STEPS = 4
_HALVINGS = 3  # at most, of a Gauss-Newton step that increases the cost


class ForwardModel(Protocol):
    """The part of `Operator` that least squares need."""

    linear: bool

    def __call__(self, x: Tensor, parameters: Tensor) -> Tensor:
        """A(x), (B, C, h, w)."""
        ...

    def measured(self, y: Tensor) -> Tensor | None:
        """Mask of the measured entries of `y`; None for all of them."""
        ...


class Linearised:
    """The derivative J of an operator at `x`, applied and transposed by back-propagation.

    For a linear operator J is the operator itself and `x` does not count.
    """

    def __init__(self, operator: ForwardModel, x: Tensor, parameters: Tensor) -> None:
        self._operator, self._parameters = operator, parameters
        with torch.enable_grad():
            self._x = x.detach().requires_grad_()
            self._y = operator(self._x, parameters)
        self.value = self._y.detach()

    def transpose(self, v: Tensor) -> Tensor:
        """J^T v; differentiable in `v` where that requires a gradient."""
        with torch.enable_grad():
            return torch.autograd.grad(
                self._y, self._x, v, retain_graph=True, create_graph=v.requires_grad, materialize_grads=True
            )[0]

    def __call__(self, v: Tensor) -> Tensor:
        """J v."""
        if self._operator.linear:
            return self._operator(v, self._parameters)
        # J^T u is linear in u, and the transpose of that map is J.
        with torch.enable_grad():
            u = torch.zeros_like(self._y, requires_grad=True)
            return torch.autograd.grad(self.transpose(u), u, v, materialize_grads=True)[0]


def gauss_newton(
    operator: ForwardModel, x0: Tensor, parameters: Tensor, y: Tensor, rho: Tensor, iterations: int
) -> Tensor:
    """argmin_x ||y - A(x)||^2 + rho ||x - x0||^2 over what was measured, from x0.

    A linear operator takes one step, exact up to its `iterations` of conjugate gradients. Other operators take
    several; where a step increases the cost of an image it is halved for that image, or left out.

    Args:
        x0: (B, C, H, W).
        parameters: (B, ...) of the operator.
        y: (B, C, h, w) measurement.
        rho: (B,), positive.
        iterations: of conjugate gradients per Gauss-Newton step.
    """
    mask, weight = operator.measured(y), rho.view(-1, 1, 1, 1)

    def masked(v: Tensor) -> Tensor:
        return v if mask is None else v * mask

    def step(x: Tensor) -> Tensor:
        """Solution of the problem linearised at x, as a change of x."""
        tangent = Linearised(operator, x, parameters)
        gap = masked(y - tangent.value)

        def normal(v: Tensor) -> Tensor:
            return tangent.transpose(masked(tangent(v))) + weight * v

        return conjugate_gradients(normal, tangent.transpose(gap) + weight * (x0 - x), iterations)

    if operator.linear:
        return x0 + step(x0)

    def cost(x: Tensor) -> Tensor:
        gap = masked(y - operator(x, parameters))
        return gap.square().sum((1, 2, 3)) + rho * (x - x0).square().sum((1, 2, 3))

    x, least = x0, cost(x0)
    for _ in range(NEWTON_STEPS):
        change = step(x)
        for _ in range(_HALVINGS + 1):
            value = cost(x + change)
            better = value < least
            x = torch.where(better.view(-1, 1, 1, 1), x + change, x)
            least = torch.where(better, value, least)
            # An image that has moved stays; the others try half the step.
            change = torch.where(better.view(-1, 1, 1, 1), torch.zeros_like(change), change / 2)
    return x


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor],
    residual: Tensor,
    iterations: int,
    inner: Callable[[Tensor, Tensor], Tensor] | None = None,
    inverse: Tensor | float = 1.0,
    tolerance: float = 0.0,
) -> Tensor:
    """Approximate solution of normal(v) = residual by conjugate gradients from zero, image by image.

    Args:
        normal: a symmetric, positive definite map of tensors like `residual`.
        residual: (B, ...) right-hand side.
        iterations: number of steps, at most.
        inner: inner product of two such tensors, (B, 1, 1, 1); None for the sum over (B, C, H, W).
        inverse: preconditioner, a factor for every entry.
        tolerance: norm of what is left of `residual`, in units of its own, at which an image is solved. The
            others go on without it, so that no image changes with the batch it is in.
    """
    product = inner or _inner
    solution = torch.zeros_like(residual)
    direction = inverse * residual
    power = product(residual, direction)
    enough = tolerance**2 * power
    for _ in range(iterations):
        if tolerance and not bool((power > enough).any()):
            break
        image = normal(direction)
        step = _ratio(power, product(direction, image))
        if tolerance:
            step = torch.where(power > enough, step, 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        conditioned = inverse * residual
        power, before = product(residual, conditioned), power
        direction = conditioned + _ratio(power, before) * direction
    return solution


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b of non-negative numbers, 0 for the 0 / 0 of an image that is solved already."""
    return a / b.clamp_min(torch.finfo(b.dtype).tiny)
