"""What the tests of the integrations share: what has been replaced, and whether the numbers are the same."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor


def _snapshot(module: ModuleType) -> dict[str, Any]:
    """Every object of a module and of its classes, by name."""
    actual = {name: value for name, value in vars(module).items() if name != "__warningregistry__"}
    for name, value in vars(module).items():
        if isinstance(value, type):
            actual |= {f"{name}.{key}": inner for key, inner in vars(value).items()}
    return actual


@pytest.fixture
def snapshot() -> Callable[[ModuleType], dict[str, Any]]:
    """(module) -> every object of it and of its classes, by name."""
    return _snapshot


@pytest.fixture
def changed() -> Callable[[ModuleType, dict[str, Any]], set[str]]:
    """(module, snapshot) -> names of what is another object now, or gone, or new."""

    def compare(module: ModuleType, before: dict[str, Any]) -> set[str]:
        now = _snapshot(module)
        return {name for name in {*before, *now} if before.get(name) is not now.get(name)}

    return compare


@pytest.fixture
def same() -> Callable[[Tensor, Tensor], bool]:
    """(actual, expected) -> whether they differ by 1e-5 of their norm at most."""

    def compare(actual: Tensor, expected: Tensor) -> bool:
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        return bool((actual - expected).double().norm() <= 1e-5 * expected.double().norm())

    return compare


@pytest.fixture
def with_gradients() -> Callable[..., list[Tensor]]:
    """(function, *tensors) -> its result and the gradient of a weighted sum of it in every tensor."""

    def run(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
        inputs = [t.clone().requires_grad_() for t in tensors]
        result = function(*inputs)
        weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
        return [result.detach(), *torch.autograd.grad((result * weights).sum(), inputs)]

    return run
