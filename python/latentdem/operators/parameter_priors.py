"""Priors of operator parameters: a penalty, a set of allowed values, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class ParameterPrior:
    """A prior without penalty that allows every value; a subclass overrides one or both methods."""

    def penalty(self, value: Tensor) -> Tensor:
        """(B,) negative log prior density of `value` (B, *shape), up to a constant."""
        return value.new_zeros(len(value))

    def project(self, value: Tensor) -> Tensor:
        """The nearest allowed value; applied after every step of the M-step."""
        return value


@dataclass(frozen=True)
class Range(ParameterPrior):
    """Every entry lies between `least` and `most`."""

    least: float
    most: float

    def project(self, value: Tensor) -> Tensor:
        return value.clamp(self.least, self.most)


@dataclass(frozen=True)
class Simplex(ParameterPrior):
    """The last two axes are a blur kernel, non-negative with sum 1."""

    def project(self, value: Tensor) -> Tensor:
        value = value.clamp_min(0)
        return value / value.sum((-2, -1), keepdim=True).clamp_min(torch.finfo(value.dtype).tiny)


@dataclass(frozen=True)
class Smooth(ParameterPrior):
    """weight / 2 times the sum of squared differences of neighbours along the last two axes."""

    weight: float

    def penalty(self, value: Tensor) -> Tensor:
        steps = [value.diff(dim=axis).square().flatten(1).sum(1) for axis in (-2, -1)]
        return self.weight / 2 * (steps[0] + steps[1])


@dataclass(frozen=True)
class Sparse(ParameterPrior):
    """The weight times the sum of |value - centre|."""

    weight: float
    centre: float = 0.0

    def penalty(self, value: Tensor) -> Tensor:
        return self.weight * (value - self.centre).abs().reshape(len(value), -1).sum(1)


@dataclass(frozen=True)
class Gaussian(ParameterPrior):
    """Independent Gaussians with this mean and standard deviation."""

    mean: float
    std: float

    def penalty(self, value: Tensor) -> Tensor:
        return ((value - self.mean) / self.std).square().reshape(len(value), -1).sum(1) / 2


@dataclass(frozen=True)
class Denoised(ParameterPrior):
    """A plug-and-play denoiser: value (B, *shape) -> value, applied after every step."""

    denoiser: Callable[[Tensor], Tensor]

    def project(self, value: Tensor) -> Tensor:
        return self.denoiser(value)


@dataclass(frozen=True)
class Penalty(ParameterPrior):
    """A custom function: value (B, *shape) -> (B,) negative log prior density."""

    function: Callable[[Tensor], Tensor]

    def penalty(self, value: Tensor) -> Tensor:
        return self.function(value)
