"""Images in any form that a caller may have, and results in the same form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError
from .arrays import ValueRange, from_array, from_tensor
from .images import ImageFile, read_bytes, read_image, read_pillow

OneImage: TypeAlias = Union[str, "os.PathLike[str]", bytes, Image.Image, np.ndarray, Tensor]
ImageLike: TypeAlias = OneImage | Sequence[OneImage]
# Images as they are given back: in the form that came in, a PIL image for a path and for bytes.
ImageForm: TypeAlias = Union[Image.Image, np.ndarray, Tensor, "list[ImageForm]"]


class Source(Protocol):
    """Images that were given, as the solver takes them, and the way back to their form."""

    @property
    def pixels(self) -> Tensor:
        """(B, C, H, W) float32 in [-1, 1], C = 1 or 3, on the CPU."""
        ...

    @property
    def opaque(self) -> Tensor | None:
        """(B, 1, H, W), 0 for the pixels that are wholly transparent, else 1; None if none is, or all are."""
        ...

    def back(self, image: Tensor) -> ImageForm:
        """Images (B, C, H, W) in [-1, 1] in the form that came in, with its transparency."""
        ...

    def file(self, index: int) -> ImageFile:
        """One of the images as a file would hold it."""
        ...

    def pick(self, index: int | slice) -> Source:
        """One image (0 or greater), or some."""
        ...


@dataclass(frozen=True)
class SeveralImages:
    """A list of images of one size and kind."""

    parts: tuple[Source, ...]

    @property
    def pixels(self) -> Tensor:
        """(B, C, H, W)."""
        return torch.cat([part.pixels for part in self.parts])

    @property
    def opaque(self) -> Tensor | None:
        """(B, 1, H, W); None where all pixels of all images count."""
        masks = [part.opaque for part in self.parts]
        if all(mask is None for mask in masks):
            return None
        ones = torch.ones_like(self.parts[0].pixels[:, :1])
        return torch.cat([ones if mask is None else mask for mask in masks])

    def back(self, image: Tensor) -> list[ImageForm]:
        """A list of images, each in its form."""
        return [part.back(one[None]) for part, one in zip(self.parts, image, strict=True)]

    def file(self, index: int) -> ImageFile:
        """One of the images as a file would hold it."""
        return self.parts[index].file(0)

    def pick(self, index: int | slice) -> Source:
        """One image by itself, or the list of some."""
        return replace(self, parts=self.parts[index]) if isinstance(index, slice) else self.parts[index]


def open_image(image: ImageLike, value_range: ValueRange | None = None) -> Source:
    """Opens an image, in any of the forms below, or a list of images of one size and kind.

    Args:
        image: a path; the contents of a file (bytes); a PIL image; an array (H, W) or (H, W, C) of any real
            type, with floats in [0, 1] and whole numbers from 0 to the greatest of their type, as in
            scikit-image; or a tensor (H, W), (C, H, W) or (B, C, H, W) of floats in [-1, 1] or of whole
            numbers. C is 1 or 3, or 2 or 4 with opacity. Floats may leave their range slightly, as with noise.
        value_range: (black, white) of an array or tensor with another range.

    Raises:
        UserError: the type, shape or range is another, values are not finite, or the file is unreadable.
    """
    if isinstance(image, np.ndarray):
        return from_array(image, value_range)
    if isinstance(image, Tensor):
        return from_tensor(image, value_range)
    if isinstance(image, Image.Image) and value_range is not None and image.mode in ("I", "F"):
        return from_array(np.asarray(image), value_range)
    if isinstance(image, (list, tuple)):
        return _several([open_image(one, value_range) for one in image])
    if value_range is not None:
        raise UserError(
            "Files and PIL images have a range of their own; value_range is for arrays and tensors."
        )
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return read_bytes(bytes(image))
    if isinstance(image, Image.Image):
        return read_pillow(image)
    raise UserError(
        "An image is a path, bytes, a PIL image, an array, a tensor or a list of these, "
        f"not {type(image).__name__}."
    )


def to_tensor(image: ImageLike, value_range: ValueRange | None = None) -> Tensor:
    """The pixels (B, C, H, W) float32 in [-1, 1] of images in any form, without transparency.

    Args:
        image: see `open_image`.
        value_range: see `open_image`.

    Raises:
        UserError: as `open_image`.
    """
    return open_image(image, value_range).pixels


def _several(parts: list[Source]) -> SeveralImages:
    if not parts:
        raise UserError("The list of images is empty; give at least one.")
    if any(len(part.pixels) != 1 for part in parts):
        raise UserError("A list holds single images; give several tensors as one batch (B, C, H, W).")
    shapes = sorted({tuple(part.pixels.shape[1:]) for part in parts})
    if len(shapes) != 1:
        kinds = " and ".join(" x ".join(map(str, shape)) for shape in shapes)
        raise UserError(
            f"Images that are restored together are of one size and kind, not {kinds} (channels, "
            "height, width); give them one by one."
        )
    return SeveralImages(tuple(parts))
