"""Which implementations of the operations exist on this machine, and which one is used.

"reference" is plain PyTorch and always there; "cpp" and "cuda" are the compiled modules for CPU and for CUDA
tensors. Without a request an operation takes the fastest backend that supports its arguments, in silence. A
backend is requested with `use_backend` or, for a whole process, with the environment variable
LATENTDEM_BACKEND; where it cannot be used an exception says why. Operations that have no implementation on a
requested backend run their reference.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch


class Backend(NamedTuple):
    """Whether a backend can be used on this machine, and why not ("" if it can)."""

    available: bool
    reason: str

    def __str__(self) -> str:
        return "available" if self.available else f"not available: {self.reason}"


def _load(name: str) -> tuple[ModuleType | None, str]:
    try:
        return import_module(f".{name}", __package__), ""
    except ImportError as error:
        return None, _why_missing(Path(__file__).resolve().parent, name, error)


def _why_missing(folder: Path, name: str, error: ImportError) -> str:
    def built(module: str) -> bool:
        return any((folder / f"{module}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)

    if built(name):
        return f"its compiled module does not load ({error})"
    if built("_cpu"):
        return "latentdem was built without CUDA (nvcc not found or LATENTDEM_CUDA=OFF)"
    if (folder.parent / "pyproject.toml").exists():
        return (
            f"latentdem_ext was imported from the source folder {folder}, which holds no compiled module; "
            "start Python in another folder, or install with `pip install -e .`"
        )
    return "latentdem was installed without its compiled modules (LATENTDEM_NATIVE=OFF)"


cpu, _cpu_reason = _load("_cpu")
cuda, _cuda_reason = _load("_cuda")
_environment = os.environ.get("LATENTDEM_BACKEND") or None
_request = threading.local()


def backends() -> dict[str, Backend]:
    """Every backend by name, with its state."""
    return {name: state() for name, state in _STATES.items()}


def _cuda_state() -> Backend:
    if cuda is not None and (torch.version.cuda is None or not torch.cuda.is_available()):
        return Backend(False, "PyTorch sees no CUDA device")
    return Backend(cuda is not None, _cuda_reason)


# Functions: whether there is a CUDA device is not asked before somebody wants to know.
_STATES = {
    "reference": lambda: Backend(True, ""),
    "cpp": lambda: Backend(cpu is not None, _cpu_reason),
    "cuda": _cuda_state,
}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Request a backend for the operations that this thread calls inside the block.

    Args:
        name: a key of `backends()`.

    Raises:
        ValueError: there is no backend of that name.
        RuntimeError: the backend cannot be used on this machine.
    """
    _require(name)
    before = getattr(_request, "name", None)
    _request.name = name
    try:
        yield
    finally:
        _request.name = before


def requested_backend() -> str | None:
    """The backend asked for by `use_backend` or LATENTDEM_BACKEND, None for the automatic choice.

    Raises:
        ValueError: there is no backend of that name.
        RuntimeError: the backend cannot be used on this machine.
    """
    name: str | None = getattr(_request, "name", None) or _environment
    if name is not None:
        _require(name)
    return name


def choose(operation: str, refusals: Mapping[str, str]) -> str:
    """The backend an operation runs on.

    Args:
        operation: its name, for the message.
        refusals: the backends that implement it besides the reference, fastest first, each with the reason why
            it does not take the arguments at hand ("" if it does).

    Raises:
        ValueError, RuntimeError: as `requested_backend`; also when the requested backend refuses the arguments.
    """
    wanted = requested_backend()
    for name, refusal in refusals.items():
        if wanted == name and refusal:
            raise RuntimeError(f"{operation} cannot run on the backend {name!r}: {refusal}")
        if wanted in (None, name) and not refusal and _STATES[name]().available:
            return name
    return "reference"


def _require(name: str) -> None:
    if name not in _STATES:
        raise ValueError(f"there is no backend {name!r}; there are {', '.join(_STATES)}")
    state = _STATES[name]()
    if not state.available:
        raise RuntimeError(f"the backend {name!r} cannot be used: {state.reason}")
