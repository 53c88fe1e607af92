"""A stand-in for a CUDA device: tensors with values of the CPU that say they are on `cuda:0`.

Programs take the same branches as on a GPU, with real values, and every operation that would make the host wait
for a GPU is noted: reading a value, results whose shape depends on values, and copies between host and device,
which wait unless the host's memory is pinned. Operations on tensors of both devices are refused as a GPU does.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from latentdem.solver import graph
from latentdem_ext import _native
from latentdem_ext._registry import OPERATIONS

DEVICE = torch.device("cuda", 0)
_READS = ("_local_scalar_dense", "is_nonzero", "equal", "cholesky_inverse", "_linalg_check_errors")
_SHAPES = ("nonzero", "masked_select", "_unique2", "unique_dim", "bincount")
_FROM_VALUES = ("tensor", "as_tensor", "asarray", "new_tensor", "from_numpy")
_TO_HOST = ("cpu", "numpy", "tolist", "__array__")
_MOVES = ("to", "cuda", *_TO_HOST, *_FROM_VALUES)
_PACKAGES = ("latentdem", "latentdem_ext", "diffusers")


class OnDevice(Tensor):
    """A tensor that says it is on `DEVICE`."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]


def put(value: Any) -> Any:
    """A tensor, a container of tensors, or a module (in place) on the stand-in, without noting it."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(put(parameter.data), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = put(buffer)
        return value
    return tree_map(lambda v: _marked(v) if isinstance(v, Tensor) else v, value)


def fetch(value: Tensor) -> Tensor:
    """A tensor of the stand-in on the CPU, without noting it."""
    return torch.Tensor._make_subclass(Tensor, value)


class Waits(list[tuple[str, str]]):
    """What made the host wait, in order: (operation, function of the package that called it)."""

    def counts(self) -> dict[tuple[str, str], int]:
        return dict(Counter(self))


class Recorder:
    """In place of CUDA graphs: a recorded function is called again, and must not have made the host wait.

    Attributes:
        replayed: how often, of all of them.
    """

    replayed = 0

    def __init__(self, waits: Sequence[Any] = ()) -> None:
        self._waits = waits

    def run(self, function: Callable[[], Any]) -> Any:
        return function()

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        before = len(self._waits)
        results = function()
        if len(self._waits) > before:
            raise RuntimeError("operation not permitted when stream is capturing")
        kept = tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, results)
        for value in tree_flatten(kept)[0]:
            if isinstance(value, Tensor):
                value.zero_()  # a capture computes nothing

        def replay() -> None:
            Recorder.replayed += 1
            for old, new in zip(tree_flatten(kept)[0], tree_flatten(function())[0], strict=True):
                if isinstance(old, Tensor):
                    old.copy_(new)

        return replay, kept


@contextmanager
def stand_in_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """The stand-in, while the context lasts; gives the list of what made the host wait."""
    waits = Waits()
    with monkeypatch.context() as patch, _Dispatch(waits), _Functions(waits):
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(graph, "CudaRecorder", lambda _: Recorder(waits))
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        patch.setattr(_native, "_device_refusal", lambda _: "there is no device")
        patch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=0))
        yield waits


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls)


def _marked(value: Any) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, OnDevice):
        return value
    return torch.Tensor._make_subclass(OnDevice, value, value.requires_grad)


def _caller() -> str:
    """The innermost function of the package, or of diffusers, on the stack."""
    frame = sys._getframe()
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        inside = any(package in parts for package in _PACKAGES) and "tests" not in parts
        if inside and frame.f_code.co_name[0] != "<":  # a generator belongs to a function
            return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "test"


class _Dispatch(TorchDispatchMode):
    """Passes the device on to results, and notes what waits, also inside PyTorch's composite operations."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, Tensor)]
        if not any(isinstance(tensor, OnDevice) for tensor in tensors):
            return func(*args, **kwargs)
        name = func._schema.name.split("::")[1]
        if func.namespace == "latentdem":  # below autograd
            with self, _Functions(self._waits):
                return OPERATIONS[name]._compute(*args, **kwargs)
        self._note(name, args, kwargs)
        # The zeros that back-propagation makes by itself cannot be told from those of the CPU.
        backward = torch._C._current_graph_task_id() >= 0
        others = [v for v in tensors if not isinstance(v, OnDevice) and v.ndim and not backward]
        if others and not name.startswith(("index", "_index", "copy", "_to_copy")):
            raise AssertionError(f"{name} of {_caller()} mixes tensors of the CPU and of the device")
        result = func(*args, **kwargs)
        if name in _READS[:3] or (name == "copy_" and not isinstance(args[0], OnDevice)):
            return result
        return tree_map(_marked, result)

    def _note(self, name: str, args: Any, kwargs: Any) -> None:
        counts = name == "repeat_interleave" and kwargs.get("output_size") is None
        crosses = name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice)
        if name in _READS or name in _SHAPES or counts or crosses:
            self._waits.append((name, _caller()))
        elif name in ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"):
            for index in args[1]:
                if index is not None and not isinstance(index, OnDevice):
                    self._waits.append(("index from the host", _caller()))
                elif index is not None and index.dtype in (torch.bool, torch.uint8):
                    self._waits.append(("index by a mask", _caller()))


class _Functions(TorchFunctionMode):
    """Makes tensors for the stand-in on the CPU, and notes copies between the two."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if getattr(func, "namespace", "") == "latentdem" and not torch.is_grad_enabled():
            with self:
                return OPERATIONS[name.split(".")[0]]._compute(*args, **kwargs)
        if name in _MOVES and (name not in ("tensor", "as_tensor") or func in (torch.tensor, torch.as_tensor)):
            return self._move(name, func, args, kwargs)
        if kwargs.get("device") is None or torch.device(kwargs["device"]).type != "cuda":
            return func(*args, **kwargs)
        kwargs["device"] = "cpu"
        return tree_map(_marked, func(*args, **kwargs))

    def _move(self, name: str, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        source = args[0] if isinstance(args[0], Tensor) else None
        here = isinstance(source, OnDevice)
        if name == "cuda":
            target = "cuda"
        elif name in _TO_HOST:
            target = "cpu"
        elif name == "new_tensor":
            target, here = ("cuda" if here else "cpu"), False
        else:
            target = _target(args[1:], kwargs, "cuda" if here else "cpu")
        if (target == "cuda") != here:
            self._waits.append(("to the device" if target == "cuda" else "to the host", _caller()))
        if name == "cuda":
            return _marked(source)
        args, kwargs = tree_map(_on_cpu, (args, kwargs))
        if here and target == "cpu":
            args = (fetch(source), *args[1:])
        result = func(*args, **kwargs)
        return _marked(result) if target == "cuda" else result


def _target(args: Any, kwargs: dict[str, Any], default: str) -> str:
    """Device type that the arguments of `to` name."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value.device.type
        if isinstance(value, torch.device):
            return value.type
        if isinstance(value, str):
            return torch.device(value).type
    return default


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value
