"""Which implementation of a spectral operation runs.

The modules below hold functions of the names and signatures of those in `reference`; an operation that one of
them lacks is left to the others.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from . import _backends, _cpp_ops, _cuda_ops, reference

_IMPLEMENTATIONS: dict[str, ModuleType] = {"cuda": _cuda_ops, "cpp": _cpp_ops}  # fastest first


def run(operation: str, **arguments: Any) -> Any:
    """Run an operation on the backend chosen for its arguments: names and order of `reference`, a tensor first.

    Raises:
        ValueError, RuntimeError: as `_backends.choose`.
    """
    refusals = {
        name: module.refusal(operation, arguments)
        for name, module in _IMPLEMENTATIONS.items()
        if hasattr(module, operation)
    }
    backend = _backends.choose(operation, refusals)
    # Nothing is to be computed for an empty tensor, but shapes have to be right: the definition knows them.
    empty = next(iter(arguments.values())).numel() == 0
    implementation = reference if empty else _IMPLEMENTATIONS.get(backend, reference)
    return getattr(implementation, operation)(**arguments)
