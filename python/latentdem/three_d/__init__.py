"""Pose-free sparse-view 3D: view-conditioned priors, cameras, procedural objects and their renderings.

The names below are imported when they are first used, so that the command line does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import reconstruct
    from .recipe import Recipe
    from .result import Result

__all__ = ["Recipe", "Result", "reconstruct"]

_HOME = {"Recipe": "recipe", "Result": "result", "reconstruct": "api"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
