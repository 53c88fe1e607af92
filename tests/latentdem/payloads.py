"""Files that would run code if they were unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Payload:
    """Unpickling it writes the file `trace`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path, str]]:
        return Path.write_text, (self.trace, "run")


def torch_file(path: Path, payload: Payload) -> None:
    torch.save({"state_dict": {"weight": payload}}, path)


def old_torch_file(path: Path, payload: Payload) -> None:
    torch.save({"weight": payload}, path, _use_new_zipfile_serialization=False)


def pickle_file(path: Path, payload: Payload) -> None:
    path.write_bytes(pickle.dumps({"weight": payload}, protocol=2))


def numpy_file(path: Path, payload: Any) -> None:
    with path.open("wb") as file:
        save: Any = np.savez if path.suffix == ".npz" else np.save
        save(file, np.array([payload], dtype=object), allow_pickle=True)


# What weights are written with.
WRITERS = [torch_file, old_torch_file, pickle_file]
