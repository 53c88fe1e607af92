"""Blur kernels in files, arrays and tensors."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TypeAlias, Union

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import UserError
from .files import atomic_path
from .images import decode_file
from .tiff import read_any_pixels

KernelLike: TypeAlias = Union[str, "os.PathLike[str]", np.ndarray, Tensor]

_TEXTS, _TIFFS = (".txt", ".csv", ".dat"), (".tif", ".tiff")
_PREVIEW = 256  # pixels; largest side of the enlarged picture of a kernel
_ENLARGED = "latentdem-enlarged"
_LARGE = (
    _PREVIEW // 2
)  # pixels; pictures of kernels above this are enlarged ones, unless they say that they are not
_BETWEEN_BLOCKS = 0.75  # of the squared steps of an enlarged picture; what it becomes by JPEG included
_BACKGROUND = 0.05  # of the peak; the background of a measured kernel may be below zero by so much
_LOSSY = 0.03  # of the peak; what JPEG leaves around a kernel
_OFF_CENTRE = 0.2  # of K; farther from K // 2 no kernel of the usual sets has its centre of mass


def as_kernel(kernel: KernelLike) -> Tensor:
    """Blur kernels in any form, ready for use.

    Args:
        kernel: a path, see `read_kernel`; or an array or tensor (K, K), (B, K, K) or (B, 1, K, K).

    Returns:
        (B, 1, K, K) float32, non-negative, each divided by its sum. A slightly negative background is set to 0.

    Raises:
        UserError: it is not square, smaller than 3 x 3, negative, not finite, or all zero.
    """
    if isinstance(kernel, (str, os.PathLike)):
        return read_kernel(kernel)
    if not isinstance(kernel, (np.ndarray, Tensor)):
        raise UserError(f"A kernel is a path, an array or a tensor, not {type(kernel).__name__}.")
    array = kernel.detach().cpu().double().numpy() if isinstance(kernel, Tensor) else kernel
    if array.ndim not in (2, 3, 4) or (array.ndim == 4 and array.shape[1] != 1):
        raise UserError(
            f"The kernel has the shape {array.shape}; give (K, K), or (B, 1, K, K) for one of each image."
        )
    single = array.reshape(-1, *array.shape[-2:])
    return (
        torch.cat([_checked(one, "The kernel") for one in single])
        if len(single)
        else _checked(array, "The kernel")
    )


def read_kernel(path: str | os.PathLike[str]) -> Tensor:
    """Reads a blur kernel from an array (.npy, .npz), text (.txt, .csv), a TIFF of any type, or a picture.

    Of a picture the grey levels count, white being the most. One that `write_kernel` enlarged for viewing is
    reduced again, also after an editor saved it again. One that is not square has been cropped and is filled up
    with black. A picture whose kernel lies far off its centre has been cropped, too, and is taken as centred,
    with a warning: the kernel's origin is lost, which only shifts the result.

    Returns:
        (1, 1, K, K) float32, non-negative, sum 1. A slightly negative background is set to 0.

    Raises:
        UserError: the kernel is unreadable, numbers that are not square, smaller than 3 x 3, negative, not
            finite, all zero, or drawn in black on white.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz", *_TEXTS):
        array = _read_numbers(path)
    elif suffix in _TIFFS and path.is_file():
        array = _read_tiff(path)
    else:
        array = _read_picture(path)
    return _checked(array, f"The kernel {path}")


def _checked(array: np.ndarray, name: str) -> Tensor:
    """A kernel (K, K), with any axes of length 1 before, as (1, 1, K, K) float32 with sum 1."""
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} holds {array.dtype}, not real numbers.")
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.size != array.shape[-1] ** 2:
        raise UserError(f"{name} has the shape {array.shape}; it must be square, K x K.")
    if array.shape[-1] < 3:
        raise UserError(f"{name} is smaller than 3 x 3.")
    values = array.astype(np.float64).reshape(array.shape[-2:])
    if not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite (NaN or infinity).")
    if values.max() <= 0:
        raise UserError(f"{name} has no positive value.")
    if values.min() < -_BACKGROUND * values.max():
        raise UserError(
            f"{name} has values down to {values.min():.3g} where its peak is {values.max():.3g}; a blur kernel "
            "is not negative: subtract the background, and set what is left below zero to 0."
        )
    values = values.clip(0)
    return torch.from_numpy(values / values.sum()).float()[None, None]


def _read_numbers(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() in _TEXTS:
            text = path.read_text(encoding="utf-8-sig")
            rows = [row.split() for row in text.replace(",", " ").replace(";", " ").splitlines()]
            return np.array([row for row in rows if row and not row[0].startswith("#")], dtype=np.float64)
        array = np.load(path, allow_pickle=False)
        if isinstance(array, np.ndarray):
            return array
        names = array.files
        if len(names) == 1:
            return np.asarray(array[names[0]])
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a readable {path.suffix} file of numbers.") from error
    raise UserError(f"{path} holds {len(names)} arrays; give a file with the kernel alone.")


def _read_tiff(path: Path) -> np.ndarray:
    try:
        array = read_any_pixels(path.read_bytes())
    except Exception as error:  # tifffile raises nearly anything for a damaged file
        raise UserError(f"{path} is damaged or incomplete: {' '.join(str(error).split())[:120]}.") from error
    if array.dtype.kind == "f" or array.dtype.itemsize > 2:
        return array
    return _read_picture(path)


def _read_picture(path: Path) -> np.ndarray:
    """Grey levels (K, K) of the picture of a kernel."""
    decoded = decode_file(path)
    array = decoded.array.astype(np.float64)
    channels = array.shape[-1]
    colours = array[..., :3] if channels >= 3 else array[..., :1]
    levels = colours.mean(axis=-1)
    if channels in (2, 4):  # drawn on nothing, which is black
        levels = levels * array[..., -1] / np.iinfo(decoded.array.dtype).max
    step, tolerance = _noted_step(path), _OFF_CENTRE
    if step is None or len(levels) % step:
        reduced = _reduced(levels, str(path))
        if reduced.shape != levels.shape:
            tolerance = 0.0  # `write_kernel` wrote it, and what a search finds is centred
        levels = reduced
    else:
        levels = levels[::step, ::step]
    corners = levels[[0, 0, -1, -1], [0, -1, 0, -1]]
    if corners.min() > levels.max() / 2 > levels.min():
        raise UserError(f"The kernel {path} is black on white; invert it, so that light is white.")
    if decoded.family in ("JPEG", "WEBP"):
        levels = np.where(levels < _LOSSY * levels.max(), 0, levels)
    levels = _squared(levels)
    if levels.max() <= 0:
        return levels  # which is refused
    return _centred(levels, str(path), tolerance * len(levels))


def _centred(levels: np.ndarray, name: str, tolerance: float) -> np.ndarray:
    """A kernel (K, K), in a larger frame with its centre of mass in the middle where it is far off."""
    size = len(levels)
    places = np.arange(size) - size // 2
    offsets = [round(float((levels.sum(axis=1 - axis) * places).sum() / levels.sum())) for axis in (0, 1)]
    farthest = max(map(abs, offsets))
    if farthest <= tolerance:
        return levels
    warnings.warn(
        f"The kernel {name} lies {farthest} pixels off the centre of its picture, as if that had been cropped; "
        "it is taken as centred, which only shifts the result. If it is meant to lie there, give it as .npy.",
        UserWarning,
        stacklevel=2,
    )
    return np.pad(levels, [(farthest - offset, farthest + offset) for offset in offsets])


def _noted_step(path: Path) -> int | None:
    """By how much the picture was enlarged, as `write_kernel` notes; None without such a note."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            note = str(image.info.get(_ENLARGED, ""))
    return int(note) if note.isdecimal() and int(note) > 0 else None


def _reduced(levels: np.ndarray, name: str) -> np.ndarray:
    """A picture of a kernel without its enlargement, which shows as blocks of one level.

    Nearly all changes between neighbouring rows, and columns, are then a whole number of blocks apart.
    """
    shorter = min(levels.shape)
    if shorter <= _LARGE:
        return levels
    changes = [np.square(np.diff(levels, axis=axis)).sum(axis=1 - axis) for axis in (0, 1)]
    for size in range(shorter // 3, 1, -1):
        shares = [
            [change[first::size].sum() / max(change.sum(), 1e-12) for first in range(size)]
            for change in changes
        ]
        if min(map(max, shares)) > _BETWEEN_BLOCKS:
            rows, columns = (
                _block_centres(n, int(np.argmax(share)) + 1, size)
                for n, share in zip(levels.shape, shares, strict=True)
            )
            return levels[np.ix_(rows, columns)]
    warnings.warn(
        f"The kernel {name} is {levels.shape[1]} x {levels.shape[0]} pixels; if it is an enlarged picture, "
        "give the .npy file or one that is not enlarged.",
        UserWarning,
        stacklevel=2,
    )
    return levels


def _block_centres(length: int, first: int, size: int) -> np.ndarray:
    """A pixel of every block of `size` pixels of which at least half is there, one beginning at `first`."""
    starts = np.arange(first % size - size, length, size)
    lows, highs = starts.clip(0), (starts + size).clip(max=length)
    return ((lows + highs) // 2)[2 * (highs - lows) >= size]


def _squared(levels: np.ndarray) -> np.ndarray:
    """A cropped kernel with black rows or columns around it: that only shifts the result."""
    missing = max(levels.shape) - np.array(levels.shape)
    return np.pad(levels, [(n // 2, n - n // 2) for n in missing])


def write_kernel(stem: str | Path, kernel: Tensor) -> tuple[Path, Path]:
    """Writes `stem`.npy (float32, K x K) and `stem`.png, scaled to its peak and enlarged for viewing.

    The enlargement is stored in the picture, so that `read_kernel` can undo it.

    Args:
        stem: path without suffix.
        kernel: (1, 1, K, K) or (K, K).

    Returns:
        The two paths, the array first.

    Raises:
        UserError: a file cannot be written.
    """
    stem = Path(stem)
    array_path, picture_path = (stem.with_name(stem.name + suffix) for suffix in (".npy", ".png"))
    values = kernel.detach().reshape(kernel.shape[-2:]).cpu().float().numpy()
    with atomic_path(array_path) as temporary_array, atomic_path(picture_path) as temporary_picture:
        np.save(temporary_array, values)
        factor = max(1, _PREVIEW // len(values))
        levels = np.rint(255 * values / values.max()).astype(np.uint8)
        note = PngInfo()
        note.add_text(_ENLARGED, str(factor))
        picture = Image.fromarray(levels.repeat(factor, 0).repeat(factor, 1))
        picture.save(temporary_picture, pnginfo=note)
    return array_path, picture_path
