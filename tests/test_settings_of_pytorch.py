"""What belongs to the user stays as it is: settings of PyTorch, and the other devices of the machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latentdem_ext import _backends, _native

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("python", "latentdem_ext", "kernels") for path in (ROOT / folder).rglob("*.py")]
SETTERS = ("set_float32_matmul_precision", "set_device", "use_deterministic_algorithms", "set_sync_debug_mode")


def settings(source: str) -> Iterator[str]:
    """What a module assigns to `torch.backends`, and its calls of functions that set something everywhere."""
    for node in ast.walk(ast.parse(source)):
        targets = [node.target] if isinstance(node, ast.AugAssign) else getattr(node, "targets", [])
        yield from (text for text in map(ast.unparse, targets) if text.startswith("torch.backends."))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SETTERS:
            yield node.func.attr


def test_settings_are_found() -> None:
    found = settings(
        "torch.backends.cudnn.allow_tf32 = x = True\ntorch.cuda.set_device(1)\nprint(torch.backends)"
    )
    assert list(found) == ["torch.backends.cudnn.allow_tf32", "set_device"]


def test_nothing_is_set_for_the_whole_process() -> None:
    assert {
        path.name: list(settings(path.read_text())) for path in SOURCES if [*settings(path.read_text())]
    } == {}


def test_native_code_runs_with_the_device_of_its_tensors_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """`_cuda` makes the device current again that was so before, which starts one that was not in use."""
    done: list[object] = []

    class Guard:
        def __init__(self, tensor: torch.Tensor) -> None:
            done.append(tensor)

        def __enter__(self) -> None:
            done.append("enter")

        def __exit__(self, *_: object) -> None:
            done.append("leave")

    module = type("Module", (), {"operation": staticmethod(lambda **_: done.append("launch"))})
    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    monkeypatch.setattr(_backends, "cuda", module)
    monkeypatch.setattr(_native, "_device_and_stream", lambda device: {"device": 1, "stream": 0})
    x = torch.zeros(1)
    _native.call_cuda("operation", absent=None, x=x)
    assert done[0] is x
    assert done[1:] == ["enter", "launch", "leave"]
