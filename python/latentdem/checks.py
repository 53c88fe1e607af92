"""Checks of user input, shared by the Python interface and the command line."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import UserError


def check_kernel_size(size: int, height: int, width: int) -> None:
    """Refuses a kernel size below 3 or above the smaller side of the image.

    Raises:
        UserError: the size is outside this range.
    """
    if size < 3:
        raise UserError(f"The kernel size must be at least 3 pixels, not {size}.")
    if size > min(height, width):
        raise UserError(
            f"The kernel size {size} is larger than the image ({width} x {height}); "
            f"give at most {min(height, width)}."
        )


def check_noise_sigma(sigma: float) -> float:
    """Refuses a noise standard deviation that is not a positive number up to 1.

    Raises:
        UserError: the value is outside this range.
    """
    if not 0 < sigma <= 1:
        raise UserError(
            f"The noise standard deviation must lie between 0 and 1 (in units of [-1, 1]), not {sigma}."
        )
    return float(sigma)


def check_kernel(kernel: Tensor, batch: int) -> Tensor:
    """Returns a known kernel as float32 (batch, 1, K, K).

    Raises:
        UserError: it has another shape, values that are negative or not finite, or a sum that is not 1.
    """
    square = kernel.ndim == 4 and kernel.shape[1] == 1 and kernel.shape[-1] == kernel.shape[-2]
    if not square or kernel.shape[0] not in (1, batch):
        raise UserError(f"A kernel has the shape (1 or {batch}, 1, K, K), not {tuple(kernel.shape)}.")
    kernel = kernel.detach().float()
    if not torch.isfinite(kernel).all() or kernel.min() < 0:
        raise UserError("The kernel has negative values or values that are not finite.")
    if (kernel.sum((1, 2, 3)) - 1).abs().max() > 1e-3:
        raise UserError("The kernel must have the sum 1; divide it by its sum.")
    return kernel.expand(batch, -1, -1, -1)


def resolve_device(name: str | torch.device) -> torch.device:
    """The device called "auto" (CUDA where available), "cpu", "cuda", "cuda:1" and so on.

    Raises:
        UserError: the name is unknown, or PyTorch cannot compute on such a device here.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"Unknown device '{name}'; give auto, cpu or cuda.") from error
    try:
        torch.ones(1, device=device).item()
    except Exception as error:  # each kind of device has its own way to say that there is none
        kind = device.type.upper()
        remedy = (
            ", or install a CUDA PyTorch" if device.type == "cuda" and not torch.cuda.is_available() else ""
        )
        number = f" {device.index}" if device.index is not None else ""
        raise UserError(
            f"No {kind} device{number} is available to PyTorch; choose the device cpu{remedy}."
        ) from error
    return device


def check_backend() -> str:
    """Name of the backend requested by LATENTDEM_BACKEND or `use_backend`, else "automatic".

    Raises:
        UserError: the backend does not exist or cannot be used on this machine.
    """
    import latentdem_ext

    try:
        return latentdem_ext.requested_backend() or "automatic"
    except (ValueError, RuntimeError) as error:
        raise UserError(f"The backend asked for by LATENTDEM_BACKEND cannot be used: {error}.") from None
