"""Image and kernel files: photographs to tensors in [-1, 1] and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import UserError
from .codecs import WRITABLE, Decoded, decode, encode, family_of
from .files import atomic_path
from .tiff import UnsupportedPixels

SUFFIXES = frozenset(suffix for suffixes in WRITABLE.values() for suffix in suffixes)
MIN_SIDE = 16  # pixels
_LARGEST = 2.0  # magnitude; measurement noise may leave [-1, 1], but not that far
_PREVIEW = 256  # pixels; largest side of the enlarged picture of a kernel
_ENLARGED = "latentdem-enlarged"


@dataclass(frozen=True)
class ImageFile:
    """An image file, with the data needed to write a result in the same format.

    Attributes:
        path: file that it was read from.
        pixels: (1, C, H, W) float32 in [-1, 1], upright; C = 1 (grey) or 3 (RGB).
        alpha: (H, W) opacity as integers of the file, None without transparency.
        bits: 8 or 16 per channel.
        family: format such as "PNG" or "JPEG".
        icc: colour profile, None without one.
        exif: EXIF block without orientation, None without one.
    """

    path: Path
    pixels: Tensor
    alpha: np.ndarray | None
    bits: int
    family: str
    icc: bytes | None
    exif: bytes | None

    @property
    def opaque(self) -> Tensor | None:
        """(1, 1, H, W), 0 for the pixels that are wholly transparent, else 1; None if none is, or all are."""
        if self.alpha is None or self.alpha.all() or not self.alpha.any():
            return None
        return torch.from_numpy(self.alpha > 0).float()[None, None]

    @property
    def suffix(self) -> str:
        """Suffix of a file of the same format family (PNG where that family is not written)."""
        suffixes = WRITABLE.get(self.family, (".png",))
        own = self.path.suffix
        return own if own.lower() in suffixes else suffixes[0]


def read_image(path: str | Path) -> ImageFile:
    """Reads a photograph: 8 or 16 bits, grey, RGB, palette or CMYK, with or without transparency.

    EXIF orientation is applied; in a file with several images the first one is read.

    Raises:
        UserError: the file is missing, a folder, empty, damaged, not an image, too small or far too large.
    """
    path = Path(path)
    decoded = _decode(path)
    height, width = decoded.array.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{path} is {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed.")
    colours = 3 if decoded.array.shape[-1] >= 3 else 1
    return ImageFile(
        path=path,
        pixels=_from_integers(decoded.array[..., :colours]),
        alpha=decoded.array[..., colours] if decoded.array.shape[-1] > colours else None,
        bits=8 * decoded.array.itemsize,
        family=decoded.family,
        icc=decoded.icc,
        exif=decoded.exif,
    )


def image_names(folder: Path) -> list[str]:
    """Names of the image files in `folder`, sorted.

    Raises:
        UserError: `folder` is not a folder, or holds no images.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder of images.")
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not names:
        raise UserError(
            f"There are no images in {folder}; give a folder of PNG, JPEG, TIFF, WebP or BMP files."
        )
    return names


def _decode(path: Path) -> Decoded:
    if not path.exists():
        raise UserError(f"{path} does not exist; check the path.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give an image file.")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty.")
        return decode(path)
    except (UserError, MemoryError):
        raise
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image of a known format; give a JPEG, PNG or TIFF file.") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(f"{path} has more than {limit} million pixels; cut it into parts first.") from error
    except UnsupportedPixels as error:
        raise UserError(f"{path} cannot be used: {error}; convert it to 8 or 16 bits, grey or RGB.") from error
    except Exception as error:  # a damaged file can make a decoder raise nearly anything
        raise UserError(f"{path} is damaged or incomplete: {' '.join(str(error).split())[:120]}.") from error


def check_output(path: str | Path) -> None:
    """Makes sure that the suffix of a file name is that of an image format that can be written.

    Raises:
        UserError: the suffix is missing or unknown.
    """
    if family_of(Path(path)) is None:
        known = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{path} does not name an image format; end the file name in one of {known}.")


def write_image(path: str | Path, image: Tensor, like: ImageFile | None = None) -> None:
    """Writes an image in the format of the suffix of `path`, with the depth, profile, EXIF and alpha of `like`.

    JPEG and WebP are written at quality 95. Bit depth is reduced and transparency dropped where the format
    requires it.

    Args:
        path: where to write; its suffix names the format.
        image: (1, C, H, W) or (C, H, W) in [-1, 1], clipped to it; C = 1 or 3.
        like: file that the image came from; its alpha, if any, must be (H, W). None for 8 bits without
            metadata.

    Raises:
        UserError: the suffix is unknown, values are not finite, or `path` cannot be written.
    """
    check_output(path)
    if not torch.isfinite(image).all():
        raise UserError(f"{path} is not written: the image has values that are not finite.")
    array = _to_integers(image, like.bits if like else 8)
    if like and like.alpha is not None:
        array = np.concatenate([array, like.alpha[..., None]], axis=-1)
    with atomic_path(path) as temporary:
        encode(temporary, array, like.icc if like else None, like.exif if like else None)


def to_tensor(image: Any) -> Tensor:
    """Converts an image, in any of the forms below, to a batch of images.

    Args:
        image: a path; a PIL image; an array (H, W), (H, W, 1) or (H, W, 3) of uint8, uint16 or floats in
            [0, 1]; or a floating-point tensor (B, C, H, W) in [-1, 1]. C is 1 or 3. Floats may leave their
            range slightly, as with measurement noise. Transparency is dropped.

    Returns:
        (B, C, H, W) float32 in [-1, 1].

    Raises:
        UserError: the type, shape or range is another, values are not finite, or the file is unreadable.
    """
    if isinstance(image, (str, Path)):
        return read_image(image).pixels
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, np.ndarray):
        tensor = _from_array(image)
    elif isinstance(image, Tensor):
        tensor = _checked_tensor(image)
    else:
        raise UserError(f"An image is a path, a PIL image, an array or a tensor, not {type(image).__name__}.")
    if min(tensor.shape[-2:]) < MIN_SIDE:
        raise UserError(f"The image must be at least {MIN_SIDE} x {MIN_SIDE} pixels.")
    if not torch.isfinite(tensor).all():
        raise UserError("The image has values that are not finite (NaN or infinity); replace them first.")
    if tensor.abs().max() > _LARGEST:
        raise UserError("The image is out of range: floats are in [0, 1] in arrays and in [-1, 1] in tensors.")
    return tensor


def _from_pillow(image: Image.Image) -> Tensor:
    if image.mode.startswith("I;16"):
        return to_tensor(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        raise UserError(f"PIL images of mode {image.mode} have no defined range; give an array of floats.")
    return to_tensor(np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")))


def _from_array(array: np.ndarray) -> Tensor:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3))):
        raise UserError(f"An array has the shape (H, W) or (H, W, 3), not {array.shape}.")
    array = array.reshape(*array.shape[:2], -1)
    if array.dtype in (np.uint8, np.uint16):
        return _from_integers(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"An array holds uint8, uint16 or floats in [0, 1], not {array.dtype}.")
    return torch.from_numpy(array.astype(np.float32) * 2 - 1).permute(2, 0, 1)[None].contiguous()


def _checked_tensor(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4 or tensor.shape[0] == 0 or tensor.shape[1] not in (1, 3):
        raise UserError(f"A tensor has the shape (B, C, H, W) with C = 1 or 3, not {tuple(tensor.shape)}.")
    if not tensor.is_floating_point():
        raise UserError(f"A tensor holds floats in [-1, 1], not {tensor.dtype}.")
    return tensor.detach().float()


def _from_integers(array: np.ndarray) -> Tensor:
    """Unsigned integers (H, W, C) as (1, C, H, W) in [-1, 1]."""
    half = np.float32(np.iinfo(array.dtype).max / 2)
    return torch.from_numpy(array.astype(np.float32) / half - 1).permute(2, 0, 1)[None].contiguous()


def _to_integers(image: Tensor, bits: int) -> np.ndarray:
    """Images (1, C, H, W) or (C, H, W) in [-1, 1] as (H, W, C) uint8 or uint16."""
    half = (2**bits - 1) / 2
    pixels = image.detach().reshape(image.shape[-3:]).permute(1, 2, 0).cpu().double().clamp(-1, 1)
    return ((pixels + 1) * half).round().numpy().astype(np.uint16 if bits == 16 else np.uint8)


def read_kernel(path: str | Path) -> Tensor:
    """Reads a blur kernel from a .npy file or from a picture (its grey levels).

    Returns:
        (1, 1, K, K) float32, non-negative, sum 1.

    Raises:
        UserError: the kernel is unreadable, not square, smaller than 3 x 3, negative, not finite, or all zero.
    """
    path = Path(path)
    array = _read_npy(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.size != array.shape[-1] ** 2:
        raise UserError(f"The kernel {path} has the shape {array.shape}; it must be square, K x K.")
    if array.shape[-1] < 3:
        raise UserError(f"The kernel {path} is smaller than 3 x 3.")
    if not np.isfinite(array).all():
        raise UserError(f"The kernel {path} has values that are not finite (NaN or infinity).")
    if array.min() < 0 or array.max() == 0:
        raise UserError(f"The kernel {path} must be non-negative and not zero everywhere.")
    kernel = torch.from_numpy(array.astype(np.float64) / array.sum(dtype=np.float64))
    return kernel.float().reshape(1, 1, array.shape[-1], array.shape[-1])


def _read_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a readable .npy file.") from error
    if array.dtype.kind not in "fiub":
        raise UserError(f"The kernel {path} holds {array.dtype}, not real numbers.")
    return array


def _read_picture(path: Path) -> np.ndarray:
    array = _decode(path).array
    colours = array[..., :3] if array.shape[-1] >= 3 else array[..., :1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            step = int(image.info.get(_ENLARGED, 1))
    return colours.mean(axis=-1)[::step, ::step]


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
