"""Masks of the pixels that count, in files, arrays and tensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError
from .codecs import Decoded, decode_pillow
from .images import decode_file

MaskLike: TypeAlias = Union[str, "os.PathLike[str]", Image.Image, np.ndarray, Tensor]

_NEAR = 0.25  # of the range of levels: how far from black or white a mask may be, by JPEG or soft edges
_CLEAR = 0.9  # share of the pixels of a mask that are near black or white


def as_mask(mask: MaskLike, height: int, width: int, images: int = 1) -> Tensor:
    """A mask in any form: which pixels count.

    Args:
        mask: an array or tensor (H, W), (B, H, W) or (B, 1, H, W) of numbers or truth values, above 0 where a
            pixel counts; or a path or PIL image that is white where pixels count and black where they do not,
            or transparent there if it is not black and white.
        height: H of the image.
        width: W of the image.
        images: B, of the images that it belongs to; one mask for all of them is always possible.

    Returns:
        (1 or B, 1, H, W) float32, 0 or 1.

    Raises:
        UserError: the size or shape is another, the picture is no mask, or no pixel counts.
    """
    if isinstance(mask, (str, os.PathLike)):
        counts = _from_picture(decode_file(Path(mask)), f"The mask {mask}")
    elif isinstance(mask, Image.Image):
        counts = _from_picture(decode_pillow(mask), "The mask")
    elif isinstance(mask, (np.ndarray, Tensor)):
        counts = torch.as_tensor(mask).detach().cpu() > 0
    else:
        raise UserError(f"A mask is a path, a PIL image, an array or a tensor, not {type(mask).__name__}.")
    shape = tuple(counts.shape)
    if counts.ndim not in (2, 3, 4) or (counts.ndim == 4 and shape[1] != 1) or 0 in shape:
        raise UserError(f"A mask has the shape (H, W) or (1 or B, 1, H, W) of the image, not {shape}.")
    if shape[-2:] != (height, width):
        raise UserError(
            f"The mask is {shape[-1]} x {shape[-2]} pixels and the image {width} x {height}; "
            "give one of its size."
        )
    counts = counts.reshape(-1, 1, height, width)
    if len(counts) not in (1, images):
        raise UserError(f"There are {len(counts)} masks for {images} images; give one mask, or one for each.")
    if not counts.flatten(1).any(1).all():
        raise UserError("No pixel of the image counts; give a mask with pixels, or an image that can be seen.")
    return counts.float()


def _from_picture(decoded: Decoded, name: str) -> Tensor:
    """(H, W) of a picture in two levels, whichever they are, or else of its transparency."""
    array = decoded.array
    channels = array.shape[-1]
    levels = array[..., :3].mean(axis=-1) if channels >= 3 else array[..., 0].astype(np.float64)
    alpha = array[..., -1].astype(np.float64) if channels in (2, 4) else np.ones(1)
    low, high = levels.min(), levels.max()
    if alpha.min() < alpha.max():
        return torch.from_numpy(_drawn(levels, alpha / alpha.max(), np.iinfo(array.dtype).max))
    if low == high:
        return torch.full(levels.shape, bool(high > 0))
    nearness = np.minimum(levels - low, high - levels) / (high - low)
    if (nearness < _NEAR).mean() < _CLEAR:
        raise UserError(f"{name} is not in black and white; draw what counts in white and the rest in black.")
    return torch.from_numpy(levels > (low + high) / 2)


def _drawn(levels: np.ndarray, alpha: np.ndarray, top: float) -> np.ndarray:
    """A mask drawn on transparency.

    Black strokes hide what they cover and white ones show it. What is neither, such as a photograph with an
    erased part, counts where it is opaque.
    """
    seen = alpha > 0.5
    drawn = levels[seen] / top
    if len(drawn) and drawn.max() < _NEAR:
        return ~seen
    if len(drawn) and np.minimum(drawn, 1 - drawn).max() < _NEAR:
        return seen & (levels > top / 2)
    return seen
