"""What a program asks of a GPU, counted on the CPU: operations that compute, of PyTorch and of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from latentdem_ext._registry import Operation

# They allocate, look at the same memory in another way, or are about a number of the host: a GPU does nothing.
FREE = {
    *("promote_types", "scalar_tensor", "_local_scalar_dense"),
    *("empty", "new_empty", "empty_like", "empty_strided", "detach", "alias", "lift_fresh", "select", "slice"),
    *("view", "_unsafe_view", "_reshape_alias", "as_strided", "view_as_real", "view_as_complex", "expand"),
    *("permute", "transpose", "t", "squeeze", "unsqueeze", "split", "split_with_sizes", "unbind", "chunk"),
    *("unfold", "diagonal", "set_"),
}


class Launches(TorchDispatchMode):
    """Names of the operations that compute something, in their order; each is a launch or several."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.within = False  # an operation of this package, which counts as one

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name not in FREE and not self.within:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def launches_of_operations(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    """Counts each operation of this package as one, "latentdem::" and its name, whatever computes it."""
    compute = Operation._compute

    def noted(self: Operation, *arguments: Any) -> Any:
        outer, launches.within = launches.within, True
        if not outer:
            launches.names.append(f"latentdem::{self.name}")
        try:
            return compute(self, *arguments)
        finally:
            launches.within = outer

    with monkeypatch.context() as patch, Launches() as launches:
        patch.setattr(Operation, "_compute", noted)
        yield launches
