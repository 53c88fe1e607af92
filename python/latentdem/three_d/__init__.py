"""Pose-free sparse-view 3D: view-conditioned priors, pose search, new views, meshes and procedural objects.

The names below are imported when they are first used, so that the command line does not wait for them.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ReconstructionConfig
    from .output.result import Reconstruction
    from .reconstruction import reconstruct

__all__ = ["Reconstruction", "ReconstructionConfig", "reconstruct"]

_HOME = {
    "ReconstructionConfig": "config",
    "Reconstruction": "output.result",
    "reconstruct": "reconstruction",
}
# Names and modules of version 0.1 that keep working for one release.
_OLD_NAMES = {"Recipe": ("config", "ReconstructionConfig"), "Result": ("output.result", "Reconstruction")}
_OLD_MODULES = {
    "surface": "mesh.surface",
    "meshing": "output.result",
    "loading": "priors.loading",
    "zero123": "priors.zero123",
    "scenes": "synthetic.scenes",
    "measures": "evaluation.measures",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _OLD_NAMES:
        home, new = _OLD_NAMES[name]
        _warn(f"{__name__}.{name} is now called {__name__}.{new}.")
        module = import_module(f".{home}", __name__)
        return getattr(module, name, None) or getattr(module, new)
    if name in _OLD_MODULES:
        return sys.modules[f"{__name__}.{name}"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _warn(message: str) -> None:
    warnings.warn(message, DeprecationWarning, stacklevel=3)


class _OldModule(ModuleType):
    """Stands in for a module that has moved, and warns when something is taken from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        home = _OLD_MODULES[self.__name__.rpartition(".")[2]]
        _warn(f"{self.__name__} is now called {__name__}.{home}.")
        return getattr(import_module(f".{home}", __name__), name)


for _name in _OLD_MODULES:
    sys.modules[f"{__name__}.{_name}"] = _OldModule(f"{__name__}.{_name}")
