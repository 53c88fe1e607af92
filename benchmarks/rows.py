"""The implementations that make a row of every table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import reference

COMPILED = "torch.compile(reference)"
# The measured device: the GPU where there is one.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NATIVE = "cpp" if DEVICE.type == "cpu" else "cuda"
BACKENDS = ["reference", pytest.param(COMPILED, marks=pytest.mark.slow), NATIVE]
STREAMING = [*BACKENDS[:2], "cpp" if DEVICE.type == "cpu" else "triton"]


@cache
def compiled(name: str) -> Callable[..., Any]:
    """The reference of an operation, compiled by PyTorch."""
    return torch.compile(getattr(reference, name))


def implementation(name: str, backend: str) -> Callable[..., Any]:
    """The function of a row: the bare definition, or the operation, whose backend `measure` requests."""
    if backend == COMPILED:
        return compiled(name)
    return getattr(reference if backend == "reference" else ext, name)
