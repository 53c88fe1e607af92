"""Data fidelity of a blurred image, and the closed-form proximal step that minimises it."""

from __future__ import annotations

from torch import Tensor

from . import _checks, reference
from .reference import Fidelity


def blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, *, y_hat: Tensor | None = None) -> Fidelity:
    """||y - k*x||^2 (B,), its gradient in x and the gluing target: see `reference.blur_fidelity`.

    A caller that meets the same `y` at every step passes `y_hat = torch.fft.rfft2(y)`, kept from the first.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _check("x", x, kernel, y, y_hat)
    return reference.blur_fidelity(x, kernel, y, y_hat)


def blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, *, y_hat: Tensor | None = None) -> Tensor:
    """argmin_x ||y - k*x||^2 + rho ||x - x0||^2 with rho (B,) > 0: see `reference.blur_proximal`.

    A caller that meets the same `y` at every step passes `y_hat = torch.fft.rfft2(y)`, kept from the first.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, or the kernel is larger than the image.
    """
    _check("x0", x0, kernel, y, y_hat)
    _checks.per_sample("rho", rho, "x0", x0)
    return reference.blur_proximal(x0, kernel, y, rho, y_hat)


def _check(name: str, x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> None:
    _checks.blur_arguments(name, x, kernel)
    _checks.companion("y", y, name, x)
    if y_hat is not None:
        _checks.spectrum("y_hat", y_hat, "y", y)
