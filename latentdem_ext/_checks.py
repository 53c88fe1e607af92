"""Argument checks of the operations: every error names the argument and says what was expected.

Only shapes, dtypes and devices are checked: to read values on a GPU would wait for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .reference import HQSFactors

FFT_DTYPES = (torch.float32, torch.float64)
REAL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def tensor(name: str, value: object, dtypes: Sequence[torch.dtype], dims: int | None = None) -> Tensor:
    """`value`, a dense tensor of one of `dtypes` with `dims` dimensions (at least one where None)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, not {value.layout}")
    if value.dtype not in dtypes:
        wanted = " or ".join(_short(dtype) for dtype in dtypes)
        raise TypeError(f"{name} must be of dtype {wanted}, not {_short(value.dtype)}")
    if _is_freed(value):
        raise RuntimeError(f"{name} refers to memory that has been freed")
    if value.dim() == 0 or (dims is not None and value.dim() != dims):
        wanted = "a batch dimension" if dims is None else f"{dims} dimension{'s' if dims > 1 else ''}"
        raise ValueError(f"{name} must have {wanted}, its shape is {tuple(value.shape)}")
    return value


def _is_freed(value: Tensor) -> bool:
    """The memory behind a tensor ends before its last element; False where none can be read: tracing, vmap."""
    if torch.compiler.is_compiling() or value.is_meta or value.numel() == 0:
        return False
    try:
        memory = value.untyped_storage().nbytes()
    except NotImplementedError:
        return False
    if value.is_contiguous():
        last = value.numel() - 1
    else:
        last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return bool(memory < (value.storage_offset() + last + 1) * value.element_size())


def companion(
    name: str,
    value: object,
    other_name: str,
    other: Tensor,
    shape: Sequence[int] | None = None,
    dtypes: Sequence[torch.dtype] | None = None,
) -> Tensor:
    """`value`, a tensor on the device of `other`, by default with its dtype and shape."""
    shape = other.shape if shape is None else shape
    checked = tensor(name, value, (other.dtype,) if dtypes is None else dtypes, len(shape))
    if checked.device != other.device:
        raise ValueError(f"{name} is on {checked.device}, but {other_name} is on {other.device}")
    if checked.shape != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} to go with {other_name} of shape {tuple(other.shape)}, "
            f"its shape is {tuple(checked.shape)}"
        )
    return checked


def parameter(name: str, value: object, other_name: str, other: Tensor, shape: Sequence[int]) -> Tensor:
    """`value`, a parameter of a layer: on the device of `other`, of its dtype or float32."""
    dtypes = (other.dtype,) if other.dtype.itemsize > 2 else (other.dtype, torch.float32)
    return companion(name, value, other_name, other, shape, dtypes)


def per_sample(name: str, value: object, other_name: str, other: Tensor) -> Tensor:
    """`value`, a tensor of shape (B,), any real dtype, on the device of `other`."""
    return companion(name, value, other_name, other, shape=other.shape[:1], dtypes=REAL_DTYPES)


def mask(name: str, value: object, other_name: str, other: Tensor) -> Tensor:
    """`value`, a mask (1 or B, 1, H, W) of images (B, C, H, W), of their dtype."""
    batch = 1 if tensor(name, value, (other.dtype,), 4).shape[0] == 1 else other.shape[0]
    return companion(name, value, other_name, other, (batch, 1, *other.shape[-2:]))


def spectrum(name: str, value: object, other_name: str, other: Tensor) -> Tensor:
    """`value`, a half spectrum of a tensor like `other`."""
    dtype = torch.complex128 if other.dtype == torch.float64 else torch.complex64
    return companion(name, value, other_name, other, (*other.shape[:-1], other.shape[-1] // 2 + 1), (dtype,))


def integer(name: str, value: object, least: int, most: float = math.inf) -> None:
    """`value` is an integer from `least` to `most`."""
    if not isinstance(value, (int, torch.SymInt)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, not {value}")


def number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> None:
    """`value` is a number between `least` and `most`."""
    if not isinstance(value, (int, float, torch.SymFloat)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least:g} and {most:g}, not {value}")


def flag(name: str, value: object) -> None:
    """`value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def image_size(name: str, value: object) -> tuple[int, int]:
    """`value`, the height and the width of an image."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} must be a pair of integers (H, W), not {value!r}")
    for side in value:
        integer(name, side, 1)
    return value[0], value[1]


def no_gradient(operation: str, **tensors: Tensor | None) -> None:
    """`operation` is not differentiable: none of its arguments requires a gradient."""
    for name, value in tensors.items():
        if value is not None and value.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} requires a gradient, which {operation} does not compute: detach it")


def kernel_size(name: str, size: int, height: int, width: int) -> None:
    """A K x K kernel fits on the image."""
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"{name} does not go with the image, K must be between 1 and its smaller side: K is {size}, "
            f"the image {height} x {width}"
        )


def kernel(value: object) -> Tensor:
    """`value`, a kernel (B, 1, K, K)."""
    checked = tensor("kernel", value, FFT_DTYPES, 4)
    if checked.shape[1] != 1 or checked.shape[2] != checked.shape[3] or checked.shape[2] < 1:
        raise ValueError(f"kernel must have shape (B, 1, K, K), its shape is {tuple(checked.shape)}")
    return checked


def factors(operation: str, kernel_value: Tensor, value: object) -> HQSFactors:
    """`value`, what `hqs_prepare` returns, for a kernel (B, 1, K, K); neither requires a gradient."""
    kernel(kernel_value)
    if not isinstance(value, HQSFactors):
        raise TypeError(f"factors must be what hqs_prepare returns, not {type(value).__name__}")
    # The factors have the kernel's shape: checked first, they let the error name what is wrong with the kernel.
    data_term, gains = value
    tensor("factors.data_term", data_term, FFT_DTYPES, 4)
    companion("kernel", kernel_value, "factors.data_term", data_term)
    tensor("factors.filter", gains, (kernel_value.dtype,), 4)
    (batch, _, size, _), side = kernel_value.shape, gains.shape[-2]
    companion("factors.filter", gains, "kernel", kernel_value, (batch, 1, side, side // 2 + 1))
    if side < 2 * size - 1:
        raise ValueError(f"factors.filter has {side} points a side, too few for K = {size}")
    no_gradient(operation, **{"kernel": kernel_value, "factors.data_term": data_term, "factors.filter": gains})
    return value


def blur_arguments(image_name: str, image: Tensor, kernel_value: Tensor) -> None:
    """`image` is (B, C, H, W) and `kernel_value` a kernel of the same batch that fits it."""
    tensor(image_name, image, FFT_DTYPES, 4)
    size = kernel(kernel_value).shape[-1]
    companion("kernel", kernel_value, image_name, image, (image.shape[0], 1, size, size))
    kernel_size("kernel", size, image.shape[-2], image.shape[-1])


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
