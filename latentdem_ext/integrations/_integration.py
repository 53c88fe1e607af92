"""How functions of another project are found, compared with their replacements, replaced and put back."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

_TOLERANCE = 1e-5  # of a probe's results, relative to their norm
_ABSENT = object()


class IntegrationError(RuntimeError):
    """The code to be accelerated is missing, or is not the expected code. Nothing has been changed."""


class Change(Protocol):
    """A change that an integration makes; `install` makes it and returns the function that undoes it."""

    def install(self) -> Callable[[], None]: ...


class Replacement(NamedTuple):
    """A function that takes the place of another one: attribute `name` of a module, class or object."""

    owner: Any
    name: str
    value: Callable[..., Any]

    def install(self) -> Callable[[], None]:
        """Replaces the function; the returned function restores the same object."""
        original = vars(self.owner).get(self.name, _ABSENT)
        setattr(self.owner, self.name, self.value)
        if original is _ABSENT:
            return partial(delattr, self.owner, self.name)
        return partial(setattr, self.owner, self.name, original)


class Integration:
    """The functions `apply`, `remove` and `accelerate` of one project.

    Args:
        project: its name, for messages.
        modules: the names that its modules are imported under.
        changes: gives the changes of one of them, or raises `IntegrationError`; none for a module that has none
            of the functions.
    """

    def __init__(
        self,
        project: str,
        modules: Sequence[str],
        changes: Callable[[Any], Iterable[Change]],
    ) -> None:
        self._project, self._modules, self._changes = project, modules, changes
        self._undo: list[Callable[[], None]] = []

    def apply(self, module: Any = None) -> None:
        """Lets the operations do the work of the project's functions, until `remove`.

        Args:
            module: what holds the functions; None finds the modules that are imported or can be.

        Raises:
            IntegrationError: it is applied already, nothing was found, or what was found does not compute what
                was expected. Nothing has been changed then.
        """
        if self._undo:
            raise IntegrationError(f"{self._project} is accelerated already: call remove() first")
        targets = self._find() if module is None else [module]
        changes = [change for target in targets for change in self._changes(target)]
        if not changes:
            names = ", ".join(getattr(target, "__name__", type(target).__name__) for target in targets)
            raise IntegrationError(f"there is nothing of {self._project} to accelerate in {names}")
        self._undo = [change.install() for change in changes]

    def remove(self) -> None:
        """Puts back the very objects that `apply` has replaced; a second call does nothing."""
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def accelerate(self, module: Any = None) -> Iterator[None]:
        """`apply` with the same argument inside a `with` block, `remove` at its end."""
        self.apply(module)
        try:
            yield
        finally:
            self.remove()

    def _find(self) -> list[ModuleType]:
        modules, errors = [], []
        for name in self._modules:
            try:
                modules.append(sys.modules.get(name) or importlib.import_module(name))
            except ImportError as error:
                errors.append(str(error))
        if not modules:
            raise IntegrationError(
                f"{self._project} cannot be imported ({'; '.join(errors)}): "
                "start in its folder, or pass the module"
            )
        return modules


def expect_parameters(function: Callable[..., Any], *names: str, exactly: bool = False) -> None:
    """Refuses a function whose first parameters have other names, or that needs further ones.

    With `exactly` further ones with defaults are refused, too.

    Raises:
        IntegrationError: see above.
    """
    parameters = list(inspect.signature(function).parameters.values())
    rest = parameters[len(names) :]
    if not exactly:
        rest = [p for p in rest if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if [p.name for p in parameters[: len(names)]] != list(names) or rest:
        raise IntegrationError(
            f"{label(function)} has other parameters than expected: ({', '.join(p.name for p in parameters)}) "
            f"instead of ({', '.join(names)})"
        )


def expect_equal(
    original: Callable[..., Any], replacement: Callable[..., Any], *arguments: Any, gradient: bool = True
) -> None:
    """Calls both with the same arguments and compares the results (and gradients).

    Args:
        arguments: of both. Tensors of floating-point numbers get a gradient unless `gradient` is False.

    Raises:
        IntegrationError: one of them fails, or a result differs by more than 1e-5 of its norm.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = _results(original, arguments, gradient)
            results = _results(replacement, arguments, gradient)
        except Exception as error:
            raise IntegrationError(
                f"{label(original)} cannot be called or replaced as expected: {error}"
            ) from error
    for one, other in zip(results, expected, strict=True):
        if one.shape != other.shape or not (one - other).norm() <= _TOLERANCE * other.norm():
            raise IntegrationError(f"{label(original)} computes something else than expected; it is left alone")


def label(function: Callable[..., Any]) -> str:
    """Name of a function with its module."""
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"


def probe(*shape: int) -> Tensor:
    """Numbers in [-1, 1] to call a function with, always the same ones for a shape."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(math.prod(shape))) * 2 - 1


def _results(function: Callable[..., Any], arguments: Sequence[Any], gradient: bool) -> list[Tensor]:
    torch.manual_seed(0)
    with torch.set_grad_enabled(gradient):
        own = [a.clone().requires_grad_(gradient) if isinstance(a, Tensor) else a for a in arguments]
        results = function(*own)
        tensors = [torch.as_tensor(r) if isinstance(r, np.ndarray) else r for r in _flat(results)]
        if gradient:
            inputs = [a for a in own if isinstance(a, Tensor)]
            # Not a plain sum: the gradient of that is the same for every permutation.
            total = torch.stack([(t * probe(*t.shape).to(t)).sum() for t in tensors]).sum()
            tensors += [g for g in torch.autograd.grad(total, inputs, allow_unused=True) if g is not None]
    return [t.detach().double() for t in tensors]


def _flat(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (tuple, list)) else [results]
