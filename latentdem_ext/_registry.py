"""One registration for every operation, which dispatch, autograd, torch.compile and the tests read.

An `Operation` names its schema, the definition, the backends that implement it and its gradient. The names of
its arguments come from the schema; definition and implementations take them in that order and return what it
says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _backends, _compiled
from ._eager import needs_dispatcher


class Implementation(NamedTuple):
    """An operation on one backend, for arguments that it does not refuse and that are not empty."""

    run: Callable[..., Any]
    refusal: Callable[..., str]
    """(name of the first argument, *arguments) -> why the backend does not take them, "" if it does."""


OPERATIONS: dict[str, Operation] = {}


@dataclass(eq=False)
class Operation:
    """An operation, registered with PyTorch as `torch.ops.latentdem.<name>`.

    Args:
        name: of the operation.
        schema: its arguments and results, as `torch.library` writes them; the first argument is a tensor.
        reference: the definition; also computes what is empty.
        fake: the results without values, for tracing.
        backends: the implementations by backend, fastest first.
        fallback: computes the operation in PyTorch where no backend takes the arguments, faster than the
            reference. The reference then runs on request only.
        save: `setup_context` of the gradient.
        backward: the gradient; None where the operation is not differentiable.
        keeps_layout: results are laid out as the implementations make them, else contiguous.
        recorded_as: the name in `record_backends` and in messages, that of the operation it is a part of.
    """

    name: str
    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    backends: Mapping[str, Implementation] = field(default_factory=dict)
    fallback: Callable[..., Any] | None = None
    save: Callable[..., None] | None = None
    backward: Callable[..., Any] | None = None
    keeps_layout: bool = False
    recorded_as: str = ""

    def __post_init__(self) -> None:
        self.recorded_as = self.recorded_as or self.name
        self.arguments = re.findall(r"(\w+)[,)]", self.schema.partition("->")[0])
        definition = torch.library.custom_op(
            f"latentdem::{self.name}", self._compute, mutates_args=(), schema=self.schema
        )
        definition.register_fake(self.fake)
        if self.backward is not None:
            definition.register_autograd(self.backward, setup_context=self.save)
        self._registered = getattr(torch.ops.latentdem, self.name).default
        OPERATIONS[self.name] = self

    def run(self, *arguments: Any) -> Any:
        """The results for arguments that have been checked, in the order of the schema.

        Raises:
            ValueError, RuntimeError: as `choose`.
        """
        if _compiled.is_traced_as_defined(self.name, arguments[0]):
            return self.reference(*arguments)
        return self._registered(*arguments) if needs_dispatcher(*arguments) else self._compute(*arguments)

    def choose(self, *arguments: Any) -> str:
        """The backend that runs the operation for these arguments; `record_backends` notes it.

        Raises:
            ValueError, RuntimeError: as `requested_backend`; also when the requested backend refuses the
                arguments.
        """
        requested = _backends.requested_backend()
        chosen = "reference"
        for backend, implementation in self.backends.items():
            if requested not in (None, backend):
                continue
            refusal = implementation.refusal(self.arguments[0], *arguments)
            if not refusal and _backends.is_available(backend):
                chosen = backend
                break
            if requested is not None:
                raise RuntimeError(f"{self.recorded_as} cannot run on the backend {backend!r}: {refusal}")
        _backends.record(self.recorded_as, chosen)
        return chosen

    def named(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        """The arguments by name."""
        return dict(zip(self.arguments, arguments, strict=True))

    def _compute(self, *arguments: Any) -> Any:
        device = arguments[0].device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._compute(*arguments)
        try:
            results = self._implementation(arguments)(*arguments)
        except _compiled.CannotCompile:
            results = self._implementation(arguments)(*arguments)  # on another backend, that one is gone
        if self.keeps_layout:
            return results
        if isinstance(results, Tensor):
            return results.contiguous()
        return tuple(result.contiguous() for result in results)

    def _implementation(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        backend = self.choose(*arguments) if self.backends else "reference"
        if arguments[0].numel() == 0:
            return self.reference
        if backend in self.backends:
            return self.backends[backend].run
        if self.fallback is not None and _backends.requested_backend() != "reference":
            return self.fallback
        return self.reference
