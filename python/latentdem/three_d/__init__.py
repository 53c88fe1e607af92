"""Pose-free sparse-view 3D: view-conditioned priors, cameras, procedural objects and their renderings.

The names below are imported when they are first used, so that the command line does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ReconstructionConfig
    from .reconstruction import reconstruct
    from .result import Reconstruction

__all__ = ["Reconstruction", "ReconstructionConfig", "reconstruct"]

_HOME = {"ReconstructionConfig": "config", "Reconstruction": "result", "reconstruct": "reconstruction"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
