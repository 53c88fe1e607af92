"""Which implementations of the operations exist on this machine, and which one is used.

"reference" is plain PyTorch and always there; "cpp" and "cuda" are the compiled modules for CPU and for CUDA
tensors; "triton" are the Triton kernels for CUDA tensors, compiled at their first use; "compiled" is the
reference of some operations as PyTorch compiles it for CUDA tensors (`_compiled`). Without a request an
operation silently takes the fastest backend that supports its arguments. A backend is requested with
`use_backend` or, for a whole process, with the environment variable LATENTDEM_BACKEND; where it cannot be used
an exception says why. Operations that have no implementation on a requested backend run their reference.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch


class Backend(NamedTuple):
    """Whether a backend can be used on this machine, why not ("" if it can), and whether it is there at all."""

    available: bool
    reason: str
    built: bool = True

    def __str__(self) -> str:
        if self.available:
            return "available"
        return f"{'built, but not usable here' if self.built else 'not built'}: {self.reason}"


_DOES_NOT_LOAD = "its compiled module does not load"


def _load(name: str) -> tuple[ModuleType | None, str]:
    try:
        return import_module(f".{name}", __package__), ""
    except ImportError as error:
        return None, _why_missing(Path(__file__).resolve().parent, name, error)


def _why_missing(folder: Path, name: str, error: ImportError) -> str:
    def built(module: str) -> bool:
        return any((folder / f"{module}{suffix}").exists() for suffix in EXTENSION_SUFFIXES)

    if built(name):
        return f"{_DOES_NOT_LOAD} ({error})"
    if built("_cpu"):
        return f"latentdem was built without CUDA: {_why_without_cuda(folder)}"
    return "latentdem was installed without its compiled modules (LATENTDEM_NATIVE=OFF)"


def _why_without_cuda(folder: Path) -> str:
    """The reason that setup.py has recorded."""
    try:
        return str(json.loads((folder / "_build.json").read_text())["without_cuda"])
    except OSError:
        return "there is no record of the reason"


cpu, _cpu_reason = _load("_cpu")
cuda, _cuda_reason = _load("_cuda")
_environment = os.environ.get("LATENTDEM_BACKEND") or None
_request = threading.local()
_records: list[dict[str, list[str]]] = []


def backends() -> dict[str, Backend]:
    """Every backend by name, with its state."""
    return {name: state() for name, state in _STATES.items()}


def _cuda_state() -> Backend:
    if cuda is None:
        return _missing(_cuda_reason)
    reason = without_cuda_device()
    return Backend(not reason, reason)


def _missing(reason: str) -> Backend:
    return Backend(False, reason, built=reason.startswith(_DOES_NOT_LOAD))


def without_cuda_device() -> str:
    """Why PyTorch has no CUDA device to offer ("" if it has one)."""
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    return "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"


def triton_interprets() -> bool:
    """Whether Triton runs its kernels on the CPU (slowly, to test them) instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _triton_state() -> Backend:
    if find_spec("triton") is None:
        return Backend(False, "the package triton is not installed", built=False)
    if without_cuda_device() and not triton_interprets():
        return Backend(False, without_cuda_device())
    try:
        import_module("triton")
    except Exception as error:  # a package that does not go with this Python or PyTorch fails in many ways
        return Backend(False, f"the package triton does not load ({error})")
    return Backend(True, "")


_cannot_compile = ""  # why, after an attempt


def give_up_compiling(reason: str) -> None:
    """The backend "compiled" is not available from now on."""
    global _cannot_compile
    _cannot_compile = reason


def _compiled_state() -> Backend:
    if os.environ.get("TORCH_COMPILE_DISABLE") == "1":
        return Backend(False, "TORCH_COMPILE_DISABLE=1 is set")
    return Backend(False, _cannot_compile) if _cannot_compile else _compiler_state()


@cache
def _compiler_state() -> Backend:
    """Whether what PyTorch compiles with is here; asked once, because every call on a GPU needs the answer."""
    triton = _triton_state()
    if without_cuda_device() or triton_interprets():
        return Backend(False, without_cuda_device() or "Triton interprets its kernels (TRITON_INTERPRET=1)")
    if not triton.available:
        return Backend(False, f"it needs Triton: {triton.reason}")
    # Triton builds the launchers of its kernels with it.
    if not any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang", "cc")))):
        return Backend(False, "it needs a C compiler (gcc or clang), which was not found")
    return Backend(True, "")


# Functions, so that PyTorch looks for a CUDA device only where the answer is needed.
_STATES: dict[str, Callable[[], Backend]] = {
    "reference": lambda: Backend(True, ""),
    "cpp": lambda: Backend(True, "") if cpu is not None else _missing(_cpu_reason),
    "cuda": _cuda_state,
    "triton": _triton_state,
    "compiled": _compiled_state,
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


@contextmanager
def record_backends() -> Iterator[dict[str, list[str]]]:
    """Record which backends the operations run on inside the block, in every thread: {operation: [backend]}."""
    used: dict[str, list[str]] = {}
    _records.append(used)
    try:
        yield used
    finally:
        _records[:] = [other for other in _records if other is not used]


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


def is_available(name: str) -> bool:
    """Whether the backend can be used on this machine."""
    return _STATES[name]().available


def record(operation: str, backend: str) -> None:
    """Note in every open `record_backends` that an operation runs on a backend."""
    for noted in _records:
        used = noted.setdefault(operation, [])
        if backend not in used:
            used.append(backend)


def _require(name: str) -> None:
    if name not in _STATES:
        raise ValueError(f"there is no backend {name!r}; there are {', '.join(_STATES)}")
    state = _STATES[name]()
    if not state.available:
        raise RuntimeError(f"the backend {name!r} cannot be used: {state.reason}")
