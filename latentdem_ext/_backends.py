"""Which implementations of the operations exist on this machine, and which one is used.

"reference" is plain PyTorch and always there; "cpp" is the compiled module for CPU tensors. Without a request
an operation takes the fastest backend that supports its arguments, in silence. A backend is requested with
`use_backend` or, for a whole process, with the environment variable LATENTDEM_BACKEND; where it cannot be used
an exception says why. Operations that have no implementation on a requested backend run their reference.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import NamedTuple


class Backend(NamedTuple):
    """Whether a backend can be used on this machine, and why not ("" if it can)."""

    available: bool
    reason: str

    def __str__(self) -> str:
        return "available" if self.available else f"not available: {self.reason}"


def _load_cpu() -> tuple[ModuleType | None, str]:
    try:
        from . import _cpu
    except ImportError as error:
        return None, _why_missing(Path(__file__).resolve().parent, error)
    return _cpu, ""


def _why_missing(folder: Path, error: ImportError) -> str:
    if any((folder / f"_cpu{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        return f"its compiled module does not load ({error})"
    if (folder.parent / "pyproject.toml").exists():
        return (
            f"latentdem_ext was imported from the source folder {folder}, which holds no compiled module; "
            "start Python in another folder, or install with `pip install -e .`"
        )
    return "latentdem was installed without its compiled module (LATENTDEM_NATIVE=OFF)"


cpu, _cpu_reason = _load_cpu()
_environment = os.environ.get("LATENTDEM_BACKEND") or None
_request = threading.local()


def backends() -> dict[str, Backend]:
    """Every backend by name, with its state."""
    return {"reference": Backend(True, ""), "cpp": Backend(cpu is not None, _cpu_reason)}


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
        if wanted in (None, name) and not refusal and backends()[name].available:
            return name
    return "reference"


def _require(name: str) -> None:
    states = backends()
    if name not in states:
        raise ValueError(f"there is no backend {name!r}; there are {', '.join(states)}")
    if not states[name].available:
        raise RuntimeError(f"the backend {name!r} cannot be used: {states[name].reason}")
