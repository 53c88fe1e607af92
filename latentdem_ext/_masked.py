"""The proximal step of a blur of which only some pixels were measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backends, _checks, _native, reference
from ._registry import Implementation, Operation
from .reference.frame_preconditioner import CAUTION, LEAST, frame_lines
from .reference.masked import MAX_ITERATIONS, PROXIMAL_TOLERANCE, ROUNDING

_MOST_ITERATIONS = 10_000  # of one native call, which nothing can interrupt


def masked_proximal(
    x0: Tensor,
    kernel: Tensor,
    y: Tensor,
    mask: Tensor,
    rho: Tensor,
    fill: Tensor | None = None,
    *,
    tolerance: float = PROXIMAL_TOLERANCE,
    iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """argmin_x ||mask (y - k*x)||^2 + rho ||x - x0||^2, rho (B,) > 0, and its fill: see `reference.masked_proximal`.

    The conjugate gradients of all samples are one native call. Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, the dtypes differ, or `tolerance` or
            `iterations` is not a number.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, `tolerance` is
            negative, `iterations` is not between 0 and 10000, or an argument requires a gradient.
    """
    _checks.blur_arguments("x0", x0, kernel)
    _checks.companion("y", y, "x0", x0)
    _checks.tensor("mask", mask, (x0.dtype,), 4)
    batch = mask.shape[0] if mask.shape[0] == 1 else x0.shape[0]
    _checks.companion("mask", mask, "x0", x0, (batch, 1, *x0.shape[-2:]))
    _checks.per_sample("rho", rho, "x0", x0)
    if fill is not None:
        _checks.companion("fill", fill, "x0", x0)
    _checks.number("tolerance", tolerance, 0)
    _checks.integer("iterations", iterations, 0, _MOST_ITERATIONS)
    _checks.no_gradient("masked_proximal", x0=x0, kernel=kernel, y=y, mask=mask, rho=rho, fill=fill)
    x, filled = _proximal.run(x0, kernel, y, mask, rho, fill, tolerance, iterations)
    return x, filled


def _proximal_cpp(
    x0: Tensor,
    kernel: Tensor,
    y: Tensor,
    mask: Tensor,
    rho: Tensor,
    fill: Tensor | None,
    tolerance: float,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x0.shape
    otf = reference.kernel_to_otf(kernel, (height, width))
    rows, columns = frame_lines(mask)
    x = torch.empty_like(x0, memory_format=torch.contiguous_format)
    filled = torch.empty_like(x)
    arrays = {
        "x0": x0,
        "y": y,
        "fill": fill,
        "mask": mask,
        "otf": otf,
        "rho": rho.double(),
        "band_rows": rows,
        "band_columns": columns,
    }
    _native.call_cpp(
        "masked_proximal",
        **_native.plain_arguments(arrays),
        x=x,
        filled=filled,
        batch=batch,
        masks=mask.shape[0],
        channels=channels,
        height=height,
        width=width,
        row_count=len(rows),
        column_count=len(columns),
        tolerance=tolerance,
        caution=CAUTION[0],
        caution_with_holes=CAUTION[1],
        rounding=ROUNDING * torch.finfo(x0.dtype).eps,
        least=LEAST,
        iterations=iterations,
    )
    return x, filled


def _cpp_refusal(name: str, x0: Tensor, *_: Any) -> str:
    refusal, (height, width) = _native.cpp_refusal(name, x0), x0.shape[-2:]
    if refusal or _backends.cpu is None:
        return refusal
    for side, count in (("rows", height), ("columns", width)):
        if count % 2 or not _backends.cpu.has_fft(count):
            return f"{name} has {count} {side}: odd, or with a prime factor above 13"
    return ""


def _fake(x0: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    image = torch.empty_like(x0, memory_format=torch.contiguous_format)
    return image, torch.empty_like(image)


_proximal = Operation(
    "masked_proximal",
    "(Tensor x0, Tensor kernel, Tensor y, Tensor mask, Tensor rho, Tensor? fill, float tolerance, "
    "SymInt iterations) -> (Tensor, Tensor)",
    reference=reference.masked_proximal,
    fake=_fake,
    backends={"cpp": Implementation(_proximal_cpp, _cpp_refusal)},
)
