"""Arrays and tensors as images: their layout and range, and results in the same."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from .images import MIN_SIDE, ImageFile, to_integers

ValueRange = tuple[float, float]
_BEYOND = 0.5  # of the range: measurement noise may leave it, but not that far
_DARK, _DARK_SHARE = -0.1, 0.01  # a photograph in [-1, 1] has values below this, in more than this share of it
_NARROW = 1e-3  # share of the range of an integer type; values that fill less were meant in another range


@dataclass(frozen=True)
class ArrayImage:
    """Images given as an array or tensor, and how to give results back in the same layout, type and range.

    Attributes:
        pixels: (B, C, H, W) float32 in [-1, 1], C = 1 or 3, on the CPU.
        alpha: (B, 1, H, W) opacity in [0, 1]; None without transparency.
        layout: names of the axes as they came: "HW", "HWC", "CHW" or "BCHW".
        value_range: values of black and white.
        dtype: data type, of NumPy or PyTorch.
        device: of a tensor; None for an array.
    """

    pixels: Tensor
    alpha: Tensor | None
    layout: str
    value_range: ValueRange
    dtype: np.dtype | torch.dtype
    device: torch.device | None = None

    @property
    def opaque(self) -> Tensor | None:
        """(B, 1, H, W), 0 for the pixels that are wholly transparent, else 1; None if none is, or all are."""
        if self.alpha is None:
            return None
        seen = self.alpha > 0
        return None if seen.all() or not seen.any() else seen.float()

    def file(self, index: int) -> ImageFile:
        """One of the images as a file would hold it."""
        bits = 16 if str(self.dtype).endswith("uint16") else 8
        alpha = None
        if self.alpha is not None:
            alpha = to_integers(2 * self.alpha[index] - 1, bits).squeeze(-1)
        return ImageFile(None, self.pixels[index : index + 1], alpha, bits)

    def pick(self, index: int | slice) -> ArrayImage:
        """Some images of the batch; one of them is a batch of one."""
        rows = index if isinstance(index, slice) else slice(index, index + 1)
        return replace(self, pixels=self.pixels[rows], alpha=None if self.alpha is None else self.alpha[rows])

    def back(self, image: Tensor) -> np.ndarray | Tensor:
        """Images (B, C, H, W) in [-1, 1] in the layout, type and range that came in, with the alpha channel."""
        values = (image.detach().cpu().double() + 1) / 2
        if self.alpha is not None:
            alpha = self.alpha.double()
            if alpha.shape[-2:] != image.shape[-2:]:
                alpha = torch.nn.functional.interpolate(alpha, image.shape[-2:], mode="bilinear")
            values = torch.cat([values, alpha], dim=1)
        low, high = self.value_range
        if not (
            self.dtype.is_floating_point if isinstance(self.dtype, torch.dtype) else self.dtype.kind == "f"
        ):
            values = (values.clamp(0, 1) * (high - low) + low).round()
        else:
            values = values * (high - low) + low
        if self.layout != "BCHW":
            values = values[0]
        if self.layout == "HW":
            values = values[0]
        if self.layout == "HWC":
            values = values.permute(1, 2, 0)
        if isinstance(self.dtype, torch.dtype):
            return values.to(self.device, self.dtype)
        return np.ascontiguousarray(values.numpy().astype(self.dtype))


def from_array(array: np.ndarray, value_range: ValueRange | None = None) -> ArrayImage:
    """An image as an array: (H, W) or (H, W, C), the last of an even number of channels being opacity.

    Args:
        array: of any real type; floats are in [0, 1], whole numbers from 0 to the greatest of their type and
            truth values 0 or 1, as in scikit-image.
        value_range: values of black and white where they are others.

    Raises:
        UserError: the shape or range is another, or values are not finite.
    """
    if not (array.ndim == 2 or (array.ndim == 3 and 1 <= array.shape[-1] <= 4)):
        raise UserError(f"An array has the shape (H, W) or (H, W, C) with C from 1 to 4, not {array.shape}.")
    if array.dtype.kind not in "buif":
        raise UserError(f"An array holds real numbers, not {array.dtype}.")
    if value_range is None:
        value_range = (
            (0.0, 1.0) if array.dtype.kind in "bf" else _integer_range(array.dtype, float(array.max()))
        )
    # PyTorch cannot take every type of NumPy; the wider ones keep more than the 24 bits that are used.
    values = torch.from_numpy(array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32))
    values = values[None, None] if array.ndim == 2 else values.permute(2, 0, 1)[None]
    return _image(values, "HW" if array.ndim == 2 else "HWC", value_range, array.dtype, None)


def from_tensor(tensor: Tensor, value_range: ValueRange | None = None) -> ArrayImage:
    """Images (H, W), (C, H, W) or (B, C, H, W), the last of an even number of channels being opacity.

    Args:
        tensor: floats in [-1, 1], or whole numbers from 0 to the greatest of their type.
        value_range: values of black and white where they are others, such as (0, 1).

    Raises:
        UserError: the shape or range is another, or values are not finite.
    """
    shape = tuple(tensor.shape)
    layout = {2: "HW", 3: "CHW", 4: "BCHW"}.get(tensor.ndim)
    if layout is None or 0 in shape or (tensor.ndim > 2 and shape[-3] > 4):
        raise UserError(
            f"A tensor has the shape (H, W), (C, H, W) or (B, C, H, W) with C from 1 to 4, not {shape}."
        )
    if tensor.is_complex():
        raise UserError(f"A tensor holds real numbers, not {tensor.dtype}.")
    values = tensor.detach().cpu().reshape(-1, shape[-3] if len(shape) > 2 else 1, *shape[-2:])
    if value_range is None:
        if tensor.is_floating_point():
            value_range = (-1.0, 1.0)
            _warn_of_positive(values)
        elif tensor.dtype == torch.bool:
            value_range = (0.0, 1.0)
        else:
            value_range = _integer_range(values.numpy().dtype, float(values.max()))
    return _image(values, layout, value_range, tensor.dtype, tensor.device)


def _integer_range(dtype: np.dtype, greatest: float) -> ValueRange:
    """From 0 to the greatest whole number of a type.

    Raises:
        UserError: the type is wide and the values fill so little of it that another range must be meant.
    """
    top = float(np.iinfo(dtype).max)
    if dtype.itemsize > 2 and greatest < _NARROW * top:
        raise UserError(
            f"White is {top:.0f} in whole numbers of type {dtype}, but the greatest here is {greatest:.0f}; "
            "say which are black and white, such as value_range=(0, 255)."
        )
    return 0.0, top


def _warn_of_positive(values: Tensor) -> None:
    dark = float((values < _DARK).float().mean())
    if dark < _DARK_SHARE and 0 < float(values.max()) <= 1 + _BEYOND:
        warnings.warn(
            "The values of the tensor lie in [0, 1] but are read as [-1, 1], -1 being black; "
            "say value_range=(0, 1) if 0 is black, and value_range=(-1, 1) if not.",
            UserWarning,
            stacklevel=6,  # the caller of `deblur` and `restore`
        )


def _image(
    values: Tensor,
    layout: str,
    value_range: ValueRange,
    dtype: np.dtype | torch.dtype,
    device: torch.device | None,
) -> ArrayImage:
    """Checks values (B, C, H, W), C from 1 to 4, and brings them to [-1, 1]."""
    low, high = map(float, value_range)
    if not -float("inf") < low < high < float("inf"):
        raise UserError(
            f"The value range is (black, white), two numbers of which white is greater, not {value_range}."
        )
    if min(values.shape[-2:]) < MIN_SIDE:
        raise UserError(f"The image must be at least {MIN_SIDE} x {MIN_SIDE} pixels.")
    if (low, high) == (-1, 1):
        pixels = values.float()
    elif low == 0:
        pixels = values.float() / (high / 2) - 1
    else:
        pixels = ((values.double() - low) / ((high - low) / 2) - 1).float()
    if not torch.isfinite(pixels).all():
        raise UserError("The image has values that are not finite (NaN or infinity); replace them first.")
    if pixels.abs().max() > 1 + 2 * _BEYOND:
        raise UserError(
            f"The image is out of range: its values go from {float(values.min()):.4g} to "
            f"{float(values.max()):.4g}, where black is {low:g} and white {high:g}; say which they "
            "are, such as value_range=(0, 255)."
        )
    if pixels.is_inference():  # made by the caller in inference mode, and of no use where gradients are needed
        pixels = pixels.clone()
    colours = 3 if pixels.shape[1] > 2 else 1
    alpha = (pixels[:, colours:] + 1) / 2 if pixels.shape[1] > colours else None
    return ArrayImage(pixels[:, :colours].contiguous(), alpha, layout, (low, high), dtype, device)
