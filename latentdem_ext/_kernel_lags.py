"""The kernel step of kernel estimation from gradients: their correlations, and the kernel with these."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
from ._registry import Implementation, Operation

_MOST_ITERATIONS = 10000  # of one native call, which nothing can interrupt


def gradient_lags(
    x: Tensor, y_hat: Tensor, mask: Tensor, whitening: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    """Correlations of the gradients of x with themselves and those of y: see `reference.gradient_lags`.

    x (B, C, H, W), y_hat (B, C, H, W // 2 + 1) complex, mask (1 or B, 1, H, W), whitening (B,). Results
    (B, 1, 2 K - 1, 2 K - 1) and (B, 1, K, K); on a CPU all of it is one native call. Not differentiable.

    Raises:
        TypeError: x is not a float32 or float64 tensor, the dtypes do not go together, or `kernel_size` is not
            an integer.
        ValueError: shapes or devices do not go together, K is larger than the image, `whitening` is negative,
            or an argument requires a gradient.
    """
    _checks.tensor("x", x, _checks.FFT_DTYPES, 4)
    _checks.spectrum("y_hat", y_hat, "x", x)
    _checks.mask("mask", mask, "x", x)
    _checks.per_sample("whitening", whitening, "x", x)
    _checks.integer("kernel_size", kernel_size, 1)
    _checks.kernel_size("kernel_size", kernel_size, x.shape[-2], x.shape[-1])
    _checks.no_gradient("gradient_lags", x=x, y_hat=y_hat, mask=mask, whitening=whitening)
    if bool((whitening < 0).any()):
        raise ValueError("whitening must not be negative")
    lags, cross = _gradient_lags.run(x, y_hat, mask, whitening, kernel_size)
    return lags, cross


def kernel_from_lags(
    lags: Tensor,
    cross: Tensor,
    weight: Tensor,
    start: Tensor,
    *,
    nonnegative: bool = True,
    tolerance: float = 1e-3,
    iterations: int = 50,
) -> Tensor:
    """Least squares for the kernel with the correlations of `gradient_lags`: see `reference.kernel_from_lags`.

    lags (B, 1, 2 K - 1, 2 K - 1), cross and start (B, 1, K, K), weight (B,). On a CPU all iterations of all
    samples are one native call. Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, the dtypes differ, `nonnegative` is not True
            or False, or `tolerance` or `iterations` is not a number.
        ValueError: shapes or devices do not go together, `weight` or `tolerance` is negative, `iterations` is
            not between 0 and 10000, or an argument requires a gradient.
    """
    _checks.tensor("cross", cross, _checks.FFT_DTYPES, 4)
    batch, size = cross.shape[0], cross.shape[-1]
    if cross.shape[1:] != (1, size, size) or size < 1:
        raise ValueError(f"cross must have shape (B, 1, K, K), its shape is {tuple(cross.shape)}")
    _checks.companion("lags", lags, "cross", cross, (batch, 1, 2 * size - 1, 2 * size - 1))
    _checks.per_sample("weight", weight, "cross", cross)
    _checks.companion("start", start, "cross", cross)
    _checks.flag("nonnegative", nonnegative)
    _checks.number("tolerance", tolerance, 0)
    _checks.integer("iterations", iterations, 0, _MOST_ITERATIONS)
    _checks.no_gradient("kernel_from_lags", lags=lags, cross=cross, weight=weight, start=start)
    if bool((weight < 0).any()):
        raise ValueError("weight must not be negative")
    result: Tensor = _kernel_from_lags.run(
        lags, cross, weight, start, nonnegative, float(tolerance), iterations
    )
    return result


def _gradient_lags_cpp(
    x: Tensor, y_hat: Tensor, mask: Tensor, whitening: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    lags, cross = _fake_lags(x, y_hat, mask, whitening, kernel_size)
    arrays = {"x": x, "spectrum": y_hat, "mask": mask, "whitening": whitening}
    _native.call_cpp(
        "gradient_lags",
        **_native.plain_arguments(arrays, double=("whitening",)),
        lags=lags,
        cross=cross,
        batch=batch,
        masks=mask.shape[0],
        channels=channels,
        height=height,
        width=width,
        size=kernel_size,
    )
    return lags, cross


def _kernel_from_lags_cpp(
    lags: Tensor,
    cross: Tensor,
    weight: Tensor,
    start: Tensor,
    nonnegative: bool,
    tolerance: float,
    iterations: int,
) -> Tensor:
    kernel = torch.empty_like(start, memory_format=torch.contiguous_format)
    arrays = {"lags": lags, "cross": cross, "weight": weight, "start": start}
    _native.call_cpp(
        "kernel_from_lags",
        **_native.plain_arguments(arrays, double=("weight",)),
        kernel=kernel,
        batch=len(cross),
        size=cross.shape[-1],
        side=reference.padded_side(cross.shape[-1], cross.device),
        nonnegative=nonnegative,
        tolerance=tolerance,
        iterations=iterations,
    )
    return kernel


def _fake_lags(
    x: Tensor, y_hat: Tensor, mask: Tensor, whitening: Tensor, kernel_size: int
) -> tuple[Tensor, Tensor]:
    side = 2 * kernel_size - 1
    return x.new_empty(len(x), 1, side, side), x.new_empty(len(x), 1, kernel_size, kernel_size)


def _fake_kernel(lags: Tensor, cross: Tensor, weight: Tensor, start: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(start, memory_format=torch.contiguous_format)


_gradient_lags = Operation(
    "gradient_lags",
    "(Tensor x, Tensor y_hat, Tensor mask, Tensor whitening, SymInt kernel_size) -> (Tensor, Tensor)",
    reference=reference.gradient_lags,
    fake=_fake_lags,
    backends={"cpp": Implementation(_gradient_lags_cpp, _native.plane_refusal)},
)
_kernel_from_lags = Operation(
    "kernel_from_lags",
    "(Tensor lags, Tensor cross, Tensor weight, Tensor start, bool nonnegative, float tolerance, "
    "SymInt iterations) -> Tensor",
    reference=reference.kernel_from_lags,
    fake=_fake_kernel,
    backends={"cpp": Implementation(_kernel_from_lags_cpp, _native.cpp_refusal)},
)
