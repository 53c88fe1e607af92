"""Operators with named parameters, their priors, and the M-step by gradient descent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .base import Operator
from .descent import Optimizer, descend
from .parameter_priors import ParameterPrior

_FLOOR = 1e-6  # added to the mean square, so that a perfect fit has a logarithm


@dataclass(frozen=True)
class Parameter:
    """One named parameter of an operator.

    Attributes:
        initial: value to start from, with the shape of one image's value: a number or a tensor.
        priors: prior knowledge of it.
        step: step of Adam in the M-step, or first step of L-BFGS, in the unit of the parameter.
    """

    initial: float | Tensor
    priors: tuple[ParameterPrior, ...] = ()
    step: float = 0.02

    @property
    def shape(self) -> torch.Size:
        """Shape of the value of one image."""
        return torch.as_tensor(self.initial).shape


class Parametric(Operator):
    """An operator whose parameters have names; a subclass defines `apply`.

    Attributes:
        parameters: the parameters by name.
        fixed: names of the parameters that the M-step leaves as they are.
        ambiguous: whether several images explain a measurement equally well, so that posterior samples must not
            be averaged.
        amplifies: whether errors of estimated parameters amplify the image, so that the restoration with them
            has to count the measured modelling error.
        optimizer: optimiser of the M-step: "adam", or "lbfgs" for few parameters on which y depends smoothly.
    """

    parameters: Mapping[str, Parameter]
    fixed: frozenset[str] = frozenset()
    ambiguous: bool = False
    amplifies: bool = True
    optimizer: Optimizer = "adam"

    @abstractmethod
    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        """A(x) for x (B, C, H, W) and a value (B, *shape) of every parameter; differentiable in all of them."""

    def __call__(self, x: Tensor, parameters: Tensor) -> Tensor:
        return self.apply(x, **self.unpack(parameters))

    def __matmul__(self, inner: Parametric) -> Parametric:
        """The composition A(B(x)) of this operator A and `inner`, B."""
        return Composition(self, inner)

    def pack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Packs a value (B, *shape) of every parameter into (B, P)."""
        return torch.cat([values[name].reshape(len(values[name]), -1) for name in self.parameters], 1)

    def unpack(self, parameters: Tensor) -> dict[str, Tensor]:
        """Inverse of `pack`: a value (B, *shape) of every parameter."""
        shapes = [parameter.shape for parameter in self.parameters.values()]
        parts = parameters.split([prod(shape) for shape in shapes], 1) if shapes else []
        return {
            name: part.reshape(len(part), *shape)
            for name, part, shape in zip(self.parameters, parts, shapes, strict=True)
        }

    def initial(self, y: Tensor, known: Mapping[str, Any] | None = None) -> Tensor:
        """(B, P) to start from: the values of `known`, and the initial values of all others.

        Raises:
            UserError: `known` has another name, or a value of another shape.
        """
        known = dict(known or {})
        values = {}
        for name, parameter in self.parameters.items():
            value, shape = torch.as_tensor(known.pop(name, parameter.initial)).to(y), parameter.shape
            if value.shape not in (shape, (len(y), *shape), (1, *shape)):
                raise UserError(
                    f"The given {name} has the shape {tuple(value.shape)}; the operator takes {tuple(shape)}."
                )
            values[name] = value.expand(len(y), *shape)
        if known:
            names = ", ".join(self.parameters) or "none"
            raise UserError(f"The operator has no parameter {', '.join(known)}; it has {names}.")
        return self.pack(values) if values else y.new_zeros(len(y), 0)

    def m_step(self, x: Tensor, y: Tensor, parameters: Tensor, variance: Tensor) -> Tensor:
        """Descends n / 2 log(mean |y - A(x)|^2) plus the priors' penalties.

        The logarithm is the likelihood of a Gaussian error of unknown variance, so the weight of a
        prior against it depends neither on the noise nor on how wrong the samples still are.
        """
        samples = x.shape[1]
        flat = x.clamp(-1, 1)
        count = y[0].numel() / 2
        values = self.unpack(parameters)
        free = {name: self.parameters[name] for name in values if name not in self.fixed}
        if not free:
            return parameters

        def cost(values: dict[str, Tensor], rows: slice) -> Tensor:
            packed = self.pack(values).repeat_interleave(samples, 0)
            y_all = y[rows].repeat_interleave(samples, 0)
            error = self.mean_square(flat[rows].flatten(0, 1), packed, y_all).view(-1, samples).mean(1)
            loss = count * (error + _FLOOR).log()
            for name, parameter in free.items():
                for prior in parameter.priors:
                    loss = loss + prior.penalty(values[name])
            return loss

        def project(name: str, value: Tensor) -> Tensor:
            for prior in free[name].priors:
                value = prior.project(value)
            return value

        steps = {name: parameter.step for name, parameter in free.items()}
        return self.pack(descend(cost, values, steps, project, self.optimizer))


class Composition(Parametric):
    """outer(inner(x)), with the parameters of both.

    The measured pixels are those of `outer`.

    Raises:
        UserError: both have a parameter of the same name.
    """

    def __init__(self, outer: Parametric, inner: Parametric) -> None:
        self.outer, self.inner = outer, inner
        same = outer.parameters.keys() & inner.parameters.keys()
        if same:
            raise UserError(
                f"Both operators have a parameter {', '.join(sorted(same))}; write a Function with other names."
            )
        self.parameters = {**outer.parameters, **inner.parameters}
        self.linear = outer.linear and inner.linear

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        between = self.inner.apply(x, **{name: values[name] for name in self.inner.parameters})
        return self.outer.apply(between, **{name: values[name] for name in self.outer.parameters})

    def image_size(self, y: Tensor) -> tuple[int, int]:
        return self.inner.image_size(y.new_empty(1, 1, *self.outer.image_size(y)))

    def measured(self, y: Tensor) -> Tensor | None:
        return self.outer.measured(y)


class Function(Parametric):
    """Any differentiable function of an image and named parameters as an operator.

    Args:
        function: called as function(x, **values) with x (B, C, H, W) in [-1, 1] and values (B, *shape);
            returns (B, C, h, w) and mixes no images.
        parameters: the parameters by name.
        linear: whether it is linear in x; None finds out by a numerical test.
        image_size: (h, w) of a measurement -> (H, W) of its image; None where they are the same.
        optimizer: optimiser of the M-step, see `Parametric`.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        parameters: Mapping[str, Parameter] | None = None,
        linear: bool | None = None,
        image_size: Callable[[int, int], tuple[int, int]] | None = None,
        optimizer: Optimizer = "adam",
    ) -> None:
        self.function, self.parameters, self.optimizer = function, dict(parameters or {}), optimizer
        self._size = image_size or (lambda height, width: (height, width))
        self.linear = looks_linear(self) if linear is None else linear

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        return self.function(x, **values)

    def image_size(self, y: Tensor) -> tuple[int, int]:
        return self._size(y.shape[-2], y.shape[-1])


def looks_linear(operator: Parametric, side: int = 32) -> bool:
    """Whether A(a + 2 b) = A(a) + 2 A(b) up to 1e-3 for random images of `side` x `side` pixels."""
    generator = torch.Generator().manual_seed(0)
    a, b = (0.3 * torch.randn(1, 3, side, side, generator=generator) for _ in range(2))
    parameters = operator.initial(a)
    with torch.no_grad():
        whole, parts = operator(a + 2 * b, parameters), operator(a, parameters) + 2 * operator(b, parameters)
    return bool((whole - parts).norm() <= 1e-3 * parts.norm())
