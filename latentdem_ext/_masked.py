"""Least squares for a blur of which only some pixels were measured, in the image and in the kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
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
    """argmin_x ||mask (y - k*x)||^2 + rho ||x - x0||^2 and its fill: see `reference.masked_proximal`.

    mask (1 or B, 1, H, W), rho (B,) > 0. The conjugate gradients of all samples are one native
    call. Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, the dtypes differ, or `tolerance` or
            `iterations` is not a number.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, `tolerance` is
            negative, `iterations` is not between 0 and 10000, or an argument requires a gradient.
    """
    _checks.blur_arguments("x0", x0, kernel)
    _checks.companion("y", y, "x0", x0)
    _checks.mask("mask", mask, "x0", x0)
    _checks.per_sample("rho", rho, "x0", x0)
    if fill is not None:
        _checks.companion("fill", fill, "x0", x0)
    _checks.number("tolerance", tolerance, 0)
    _checks.integer("iterations", iterations, 0, _MOST_ITERATIONS)
    _checks.no_gradient("masked_proximal", x0=x0, kernel=kernel, y=y, mask=mask, rho=rho, fill=fill)
    x, filled = _proximal.run(x0, kernel, y, mask, rho, fill, tolerance, iterations)
    return x, filled


def masked_kernel_solve(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    right: Tensor,
    factor: Tensor | None = None,
    *,
    tolerance: float,
    iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """Kernels v in (X^T M X + a) v = b, and what they leave of b: see `reference.masked_kernel_solve`.

    x (B, C, H, W), mask (1 or B, 1, H, W), weight (B,) > 0 the a, right (B, 1, K, K) the b, factor
    (B, K^2, K^2). The conjugate gradients of all samples are one native call. Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, the dtypes differ, or `tolerance` or
            `iterations` is not a number.
        ValueError: shapes or devices do not go together, K is larger than the image, `tolerance` is negative,
            `iterations` is not between 0 and 10000, or an argument requires a gradient.
    """
    _checks.tensor("x", x, _checks.FFT_DTYPES, 4)
    _checks.tensor("right", right, (x.dtype,), 4)
    size = right.shape[-1]
    _checks.companion("right", right, "x", x, (x.shape[0], 1, size, size))
    _checks.kernel_size("right", size, x.shape[-2], x.shape[-1])
    _checks.mask("mask", mask, "x", x)
    _checks.per_sample("weight", weight, "x", x)
    if factor is not None:
        _checks.companion("factor", factor, "right", right, (x.shape[0], size * size, size * size))
    _checks.number("tolerance", tolerance, 0)
    _checks.integer("iterations", iterations, 0, _MOST_ITERATIONS)
    _checks.no_gradient("masked_kernel_solve", x=x, mask=mask, weight=weight, right=right, factor=factor)
    solution, residual = _kernel_solve.run(x, mask, weight, right, factor, tolerance, iterations)
    return solution, residual


def masked_solves_end_on_device(mask: Tensor) -> bool:
    """Whether conjugate gradients for masks like this one end on the GPU that it is on, without the host.

    Args:
        mask: (1 or B, 1, H, W) of the dtype of the images.
    """
    return mask.device.type == "cuda" and _proximal.choose(mask) == "cuda"


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
        "rho": rho,
        "band_rows": rows,
        "band_columns": columns,
    }
    _native.call_cpp(
        "masked_proximal",
        **_native.plain_arguments(arrays, double=("rho",)),
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


def _proximal_cuda(
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
    x = torch.empty_like(x0, memory_format=torch.contiguous_format)
    filled = torch.empty_like(x)
    sizes = {"batch": batch, "channels": channels, "height": height, "width": width}
    arrays = {"x0": x0, "kernel": kernel, "y": y, "fill": fill, "mask": mask, "rho": rho.to(x0.dtype)}
    _native.call_cuda(
        "masked_proximal",
        **_native.plain_arguments(arrays),
        x=x,
        filled=filled,
        workspace=_native.workspace("masked_proximal", x0, **sizes),
        masks=mask.shape[0],
        size=kernel.shape[-1],
        tolerance=tolerance,
        caution=CAUTION[0],
        caution_with_holes=CAUTION[1],
        rounding=ROUNDING * torch.finfo(x0.dtype).eps,
        least=LEAST,
        iterations=iterations,
        **sizes,
    )
    return x, filled


def _kernel_solve_cpp(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    right: Tensor,
    factor: Tensor | None,
    tolerance: float,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    batch, images, height, width = x.shape
    solution = torch.empty_like(right, memory_format=torch.contiguous_format)
    residual = torch.empty_like(solution)
    arrays = {"x": x, "mask": mask, "weight": weight, "right": right, "factor": factor}
    _native.call_cpp(
        "masked_kernel_solve",
        **_native.plain_arguments(arrays, double=("weight",)),
        solution=solution,
        residual=residual,
        batch=batch,
        masks=mask.shape[0],
        images=images,
        height=height,
        width=width,
        size=right.shape[-1],
        allowed=float(tolerance) ** 2 * images * height * width,
        iterations=iterations,
    )
    return solution, residual


def _kernel_solve_cuda(
    x: Tensor,
    mask: Tensor,
    weight: Tensor,
    right: Tensor,
    factor: Tensor | None,
    tolerance: float,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    batch, images, height, width = x.shape
    solution = torch.empty_like(right, memory_format=torch.contiguous_format)
    residual = torch.empty_like(solution)
    sizes = {"batch": batch, "images": images, "height": height, "width": width, "size": right.shape[-1]}
    arrays = {"x": x, "mask": mask, "weight": weight.to(x.dtype), "right": right, "factor": factor}
    _native.call_cuda(
        "masked_kernel_solve",
        **_native.plain_arguments(arrays),
        solution=solution,
        residual=residual,
        workspace=_native.workspace("masked_kernel_solve", x, **sizes),
        masks=mask.shape[0],
        allowed=float(tolerance) ** 2 * images * height * width,
        iterations=iterations,
        **sizes,
    )
    return solution, residual


def _fake(x0: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    image = torch.empty_like(x0, memory_format=torch.contiguous_format)
    return image, torch.empty_like(image)


def _fake_kernel(x: Tensor, mask: Tensor, weight: Tensor, right: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    kernel = torch.empty_like(right, memory_format=torch.contiguous_format)
    return kernel, torch.empty_like(kernel)


_proximal = Operation(
    "masked_proximal",
    "(Tensor x0, Tensor kernel, Tensor y, Tensor mask, Tensor rho, Tensor? fill, float tolerance, "
    "SymInt iterations) -> (Tensor, Tensor)",
    reference=reference.masked_proximal,
    fake=_fake,
    backends={
        "cuda": Implementation(_proximal_cuda, _native.grid_refusal),
        "cpp": Implementation(_proximal_cpp, _native.plane_refusal),
    },
)
_kernel_solve = Operation(
    "masked_kernel_solve",
    "(Tensor x, Tensor mask, Tensor weight, Tensor right, Tensor? factor, float tolerance, SymInt iterations) "
    "-> (Tensor, Tensor)",
    reference=reference.masked_kernel_solve,
    fake=_fake_kernel,
    backends={
        "cuda": Implementation(_kernel_solve_cuda, _native.grid_refusal),
        "cpp": Implementation(_kernel_solve_cpp, _native.plane_refusal),
    },
)
