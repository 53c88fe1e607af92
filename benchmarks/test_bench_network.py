"""group_norm_silu and upsample_conv at the shapes of a decoder and of the embedded prior, both layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from latentdem_ext import reference

from .rows import BACKENDS, implementation

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = [*BACKENDS, *(["triton"] if DEVICE == "cuda" else [])]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
# Half precision is compared with float64: the tests have the tight bounds.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DIRECTIONS = ["forward", "forward and gradient"]


def every_case(function: Callable[..., None]) -> Callable[..., None]:
    for mark in (
        pytest.mark.parametrize("backend", ROWS),
        pytest.mark.parametrize("layout", LAYOUTS),
        pytest.mark.parametrize("dtype", TOLERANCES, ids=str),
        pytest.mark.parametrize("direction", DIRECTIONS),
    ):
        function = mark(function)
    return function


def run(function: Callable[..., Tensor], given: list[Any], towards: Tensor | None) -> Tensor:
    """The result, or the gradient of <result, towards> in the first argument."""
    with torch.set_grad_enabled(towards is not None):
        result = function(*given)
        if towards is not None:
            (result,) = torch.autograd.grad(result, given[0], towards)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return result


def measure_case(measure, operation: str, backend: str, given: list[Any], layout: str, direction: str) -> None:
    x = given[0]
    towards = None
    double = [value.double() if isinstance(value, Tensor) else value for value in given]
    if direction != "forward":
        towards = torch.randn_like(getattr(reference, operation)(*given))
        x.requires_grad_()
        double[0].requires_grad_()
    definition = getattr(reference, operation)
    measure(
        f"{operation}, {layout}, {direction}",
        backend,
        " x ".join(map(str, x.shape)),
        lambda: run(implementation(operation, backend), given, towards),
        run(definition, double, None if towards is None else towards.double()),
        TOLERANCES[x.dtype],
    )


@every_case
@pytest.mark.parametrize("shape", [(1, 128, 256, 256), (1, 512, 64, 64), (4, 96, 64, 64)])
def test_group_norm_silu(measure, side_divisor, shape, backend, layout, dtype, direction):
    shape = (*shape[:2], shape[2] // side_divisor, shape[3] // side_divisor)
    x = torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    weight, bias = torch.randn(2, shape[1], device=DEVICE).to(dtype)
    measure_case(measure, "group_norm_silu", backend, [x, 32, weight, bias], layout, direction)


@every_case
@pytest.mark.parametrize("shape", [(1, 128, 128, 128), (4, 128, 32, 32)])
def test_upsample_conv(measure, side_divisor, shape, backend, layout, dtype, direction):
    shape = (*shape[:2], shape[2] // side_divisor, shape[3] // side_divisor)
    x = torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    weight = torch.randn(shape[1], shape[1], 3, 3, device=DEVICE) / (3 * shape[1] ** 0.5)
    weight = weight.to(dtype).contiguous(memory_format=LAYOUTS[layout])
    bias = torch.randn(shape[1], device=DEVICE).to(dtype)
    measure_case(measure, "upsample_conv", backend, [x, weight, bias], layout, direction)
