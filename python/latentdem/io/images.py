"""Photographs in files: read to tensors in [-1, 1] and written with what they came with."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from . import scratch
from .codecs import WRITABLE, Decoded, decode, decode_pillow, encode, family_of
from .files import atomic_path
from .metadata import Metadata
from .remote import address_of, read_address
from .tiff import UnsupportedPixels

if TYPE_CHECKING:  # PyTorch takes more than a second, which a file that cannot be read need not wait for
    from torch import Tensor

_WRITABLE_SUFFIXES = tuple(sorted(suffix for suffixes in WRITABLE.values() for suffix in suffixes))
# Files that are pictures but not read are in the list, too: their names are reported.
_RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2")
_ONLY_READ = (
    *(
        ".avif",
        ".gif",
        ".heic",
        ".heif",
        ".hif",
        ".j2k",
        ".jp2",
        ".jpx",
        ".mpo",
        ".pbm",
        ".pgm",
        ".pnm",
        ".ppm",
    ),
    *(".tga", *_RAW),
)
SUFFIXES = frozenset((*_WRITABLE_SUFFIXES, *_ONLY_READ))
MIN_SIDE = 16  # pixels
_ROWS = 512  # that are converted at a time


@dataclass(frozen=True)
class ImageFile:
    """A picture as integers, with the data needed to write a result in the same format.

    Attributes:
        path: file that it was read from; None for one from memory.
        pixels: (1, C, H, W) float32 in [-1, 1], upright; C = 1 (grey) or 3 (RGB).
        alpha: (H, W) opacity as integers of the file, None without transparency.
        bits: 8 or 16 per channel.
        family: format such as "PNG" or "JPEG".
        metadata: colour profile, EXIF data and so on.
    """

    path: Path | None
    pixels: Tensor
    alpha: np.ndarray | None = None
    bits: int = 8
    family: str = "PNG"
    metadata: Metadata = field(default_factory=Metadata)

    @classmethod
    def of(cls, decoded: Decoded, path: Path | None = None) -> ImageFile:
        """The picture that a decoder gave.

        Raises:
            UserError: it is too small.
        """
        height, width = decoded.array.shape[:2]
        if min(height, width) < MIN_SIDE:
            name = path or "The image"
            raise UserError(
                f"{name} is {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed."
            )
        if decoded.pages > 1:
            warnings.warn(
                f"{path or 'The image'} holds {decoded.pages} pictures; only the first one is read.",
                UserWarning,
                stacklevel=6,  # the caller of `deblur` and `restore`
            )
        colours = 3 if decoded.array.shape[-1] >= 3 else 1
        return cls(
            path=path,
            pixels=from_integers(decoded.array[..., :colours]),
            alpha=decoded.array[..., colours] if decoded.array.shape[-1] > colours else None,
            bits=8 * decoded.array.itemsize,
            family=decoded.family,
            metadata=decoded.metadata,
        )

    @property
    def opaque(self) -> Tensor | None:
        """(1, 1, H, W), 0 for the pixels that are wholly transparent, else 1; None if none is, or all are."""
        if self.alpha is None or self.alpha.all() or not self.alpha.any():
            return None
        import torch

        return torch.from_numpy(self.alpha > 0).float()[None, None]

    @property
    def suffix(self) -> str:
        """Suffix of a file of the same format family (PNG where that family is not written)."""
        suffixes = WRITABLE.get(self.family, (".png",))
        own = "" if self.path is None else self.path.suffix
        return own if own.lower() in suffixes else suffixes[0]

    def file(self, index: int) -> ImageFile:
        """Itself, which is a batch of one."""
        return self

    def pick(self, index: int | slice) -> ImageFile:
        """Itself, which is a batch of one."""
        return self

    def back(self, image: Tensor) -> Image.Image:
        """A PIL image with the alpha channel and metadata of this one.

        It has 16 bits only where the picture is grey and opaque: PIL has no others.

        Args:
            image: (1, C, H, W) in [-1, 1].
        """
        bits = self.bits if image.shape[1] == 1 and self.alpha is None else 8
        array = self.with_alpha(image, bits)
        made = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
        given = {"icc_profile": self.metadata.icc, "exif": self.metadata.exif, "dpi": self.metadata.dpi}
        made.info.update({name: value for name, value in given.items() if value is not None})
        return made

    def with_alpha(self, image: Tensor, bits: int) -> np.ndarray:
        """The integers (H, W, C) of an image (1, C, H, W) in [-1, 1] with the alpha channel of this one.

        For an image of another size, as super-resolution makes it, the alpha channel is resized.
        """
        array = to_integers(image, bits)
        if self.alpha is None:
            return array
        import torch
        import torch.nn.functional as F

        alpha = torch.from_numpy(self.alpha.astype(np.float32) / np.iinfo(self.alpha.dtype).max)[None, None]
        if alpha.shape[-2:] != array.shape[:2]:
            alpha = F.interpolate(alpha, array.shape[:2], mode="bilinear")
        return np.concatenate([array, to_integers(2 * alpha - 1, bits)], axis=-1)


def read_image(path: str | Path) -> ImageFile:
    """Reads a photograph: 8 or 16 bits, grey, RGB, palette or CMYK, with or without transparency.

    EXIF orientation is applied. Of a file with several pictures the first one is read, with a warning.

    Raises:
        UserError: the file is missing, a folder, empty, damaged, not an image, too small or far too large.
    """
    path = Path(path)
    return ImageFile.of(decode_file(path), path)


def read_bytes(data: bytes) -> ImageFile:
    """Reads the contents of an image file, as `read_image` does.

    Raises:
        UserError: as `read_image`.
    """
    return ImageFile.of(_decoded(data, "The image"))


def read_pillow(image: Image.Image) -> ImageFile:
    """Reads the current picture of a PIL image, as `read_image` reads its file.

    Raises:
        UserError: the pixels have no range (modes F and wide I), or it is damaged or too small.
    """
    try:
        return ImageFile.of(decode_pillow(image))
    except UnsupportedPixels as error:
        raise UserError(
            f"PIL images of mode {image.mode} have no defined range; give an array with its value_range."
        ) from error
    except (OSError, SyntaxError) as error:  # what Pillow raises where it reads the pixels of a lazy image
        raise UserError(f"The PIL image is damaged or incomplete: {error}.") from error


def image_names(folder: Path) -> list[str]:
    """Names of the image files in `folder`, sorted, without hidden ones.

    Hidden are the temporary files that a killed run leaves, see `atomic_path`, and those that macOS writes
    beside each photograph on a foreign disk.

    Raises:
        UserError: `folder` is not a folder, or holds no images.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder of images.")
    files = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    names = sorted(p.name for p in files if not p.name.startswith("."))
    if not names:
        raise UserError(f"There are no images in {folder}; give a folder of files such as JPEG, PNG or TIFF.")
    return names


def decode_file(path: Path) -> Decoded:
    """The contents of an image file.

    Raises:
        UserError: as `read_image`.
    """
    address = address_of(path)
    if address is None and not path.exists():
        raise UserError(f"{path} does not exist; check the path.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give an image file.")
    if path.suffix.lower() in _RAW:
        raise UserError(f"{path} is a raw file of a camera; develop it first and give a TIFF or PNG file.")
    if address is not None:
        return _decoded(read_address(address), address)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    return _decoded(data, str(path))


def _decoded(data: bytes, name: str) -> Decoded:
    if not data:
        raise UserError(f"{name} is empty.")
    try:
        return decode(data)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image of a known format; give a JPEG, PNG or TIFF file.") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UserError(f"{name} has more than {limit} million pixels; cut it into parts first.") from error
    except UnsupportedPixels as error:
        raise UserError(f"{name} cannot be used: {error}; convert it to 8 or 16 bits, grey or RGB.") from error
    except ModuleNotFoundError as error:
        raise UserError(f"{name} cannot be read: {error}; install it, or convert the picture.") from error
    except Exception as error:  # a damaged file can make a decoder raise nearly anything
        raise UserError(f"{name} is damaged or incomplete: {' '.join(str(error).split())[:120]}.") from error


def check_output(path: str | Path) -> None:
    """Makes sure that the suffix of a file name is that of an image format that can be written.

    Raises:
        UserError: the suffix is missing or unknown.
    """
    if family_of(Path(path)) is None:
        known = ", ".join(_WRITABLE_SUFFIXES)
        raise UserError(f"{path} does not name an image format; end the file name in one of {known}.")


def write_image(path: str | Path, image: Tensor, like: ImageFile | None = None) -> None:
    """Writes an image in the format of the suffix of `path`, with the depth, metadata and alpha of `like`.

    JPEG and WebP are written at quality 95. Bit depth is reduced where the format requires it. Transparency and
    metadata that the format cannot hold are left out, with a warning.

    Args:
        path: where to write; its suffix names the format.
        image: (1, C, H, W) or (C, H, W) in [-1, 1], clipped to it; C = 1 or 3.
        like: file that the image came from. None for 8 bits without metadata.

    Raises:
        UserError: the suffix is unknown, values are not finite, or `path` cannot be written.
    """
    check_output(path)
    if not image.isfinite().all():
        raise UserError(f"{path} is not written: the image has values that are not finite.")
    like = like or ImageFile(None, image)
    with atomic_path(path) as temporary:
        encode(temporary, like.with_alpha(image, like.bits), like.metadata)


def from_integers(array: np.ndarray) -> Tensor:
    """Unsigned integers (H, W, C) as (1, C, H, W) float32 in [-1, 1]."""
    import torch

    half = np.float32(np.iinfo(array.dtype).max / 2)
    height, width, channels = array.shape
    image = scratch.zeros((1, channels, height, width))
    for top in range(0, height, _ROWS):  # in parts, for the sake of memory
        part = array[top : top + _ROWS].astype(np.float32) / half - 1
        image[0, :, top : top + _ROWS] = torch.from_numpy(part).permute(2, 0, 1)
    return image


def to_integers(image: Tensor, bits: int) -> np.ndarray:
    """Images (1, C, H, W) or (C, H, W) in [-1, 1] as (H, W, C) uint8 or uint16."""
    half, kind = (2**bits - 1) / 2, np.uint16 if bits == 16 else np.uint8
    pixels = image.detach().reshape(image.shape[-3:]).permute(1, 2, 0).cpu()
    parts = pixels.split(_ROWS)  # for the sake of memory
    return np.concatenate([((p.double().clamp(-1, 1) + 1) * half).round().numpy().astype(kind) for p in parts])
