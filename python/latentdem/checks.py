"""Checks of user input, shared by the Python interface and the command line."""

from __future__ import annotations

import operator

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


def check_whole(what: str, value: object) -> None:
    """Refuses what is no whole number.

    Raises:
        UserError: `value`, which is called `what`, is none.
    """
    try:
        operator.index(value)  # type: ignore[arg-type]  # which is the question
    except TypeError:
        raise UserError(f"The {what} is a whole number, not {value!r}.") from None


def check_seed(seed: object) -> int:
    """Returns a seed as PyTorch takes it, an `int` of 64 bits: integers of NumPy are none.

    Raises:
        UserError: `seed` is no whole number, or has more than 64 bits.
    """
    check_whole("seed", seed)
    number = int(seed)  # type: ignore[call-overload]  # a whole number by now
    if not -(2**63) <= number < 2**64:
        raise UserError(f"The seed is a whole number of at most 64 bits, such as 0, not {number}.")
    return number


def check_noise_sigma(sigma: float) -> float:
    """Refuses a noise standard deviation that is not a positive number up to 1.

    Raises:
        UserError: the value is outside this range.
    """
    try:
        allowed = 0 < float(sigma) <= 1
    except (TypeError, ValueError):
        allowed = False
    if not allowed:
        raise UserError(
            f"The noise standard deviation must be above 0 and at most 1 (in units of [-1, 1]), not {sigma!r}; "
            "leave it out to have it estimated."
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
    """The device called "auto" (CUDA where available), "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        UserError: the name is unknown, or there is no such device.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"Unknown device '{name}'; give auto, cpu, cuda, cuda:N or mps.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "No CUDA device is available to PyTorch; use the device cpu, or install a CUDA PyTorch."
        )
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"There is no CUDA device {device.index}; the last of the {count} is cuda:{count - 1}.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("No MPS device is available to PyTorch, which needs a Mac's GPU; use the device cpu.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"Unknown device '{name}'; give auto, cpu, cuda, cuda:N or mps.")
    return device


def resolve_precision(name: str) -> torch.dtype | None:
    """The data type called "float32", "bfloat16" or "float16"; None for "auto".

    Raises:
        UserError: the name is unknown.
    """
    known = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise UserError(f"Unknown precision '{name}'; give {', '.join(known)}.")
    return known[name]


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
