"""Grey and RGB TIFF files of 8 and 16 bits, through tifffile (Pillow has no 16-bit colour)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import ExifTags, Image

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Entries of a TIFF directory that describe the photograph rather than the storage of its pixels.
_DESCRIPTIVE = (
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_ASCII = 2  # TIFF data type


@dataclass(frozen=True)
class TiffPage:
    """First page of a file, with pixels (H, W, C) as stored, not yet turned upright."""

    array: np.ndarray
    orientation: int
    icc: bytes | None
    exif: bytes | None


class UnsupportedPixels(ValueError):
    """The file is intact, but its kind of pixels is not supported; the message says which kind."""


def read_tiff(path: Path) -> TiffPage | None:
    """Reads the first page; transparency is returned as the last channel, never premultiplied.

    Returns None for files that are left to Pillow: palettes, CMYK and others of at most 8 bits.

    Raises:
        UnsupportedPixels: pixels are floating-point or wider than 16 bits, or 16-bit and neither grey nor RGB.
        Image.DecompressionBombError: there are more pixels than Pillow allows.
        Exception: any error of tifffile on a damaged file.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        known = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.RGB)
        if page.bitspersample > 16 or page.dtype is None or page.dtype.kind not in "bu":
            raise UnsupportedPixels("its pixels are floating-point or wider than 16 bits")
        if page.bitspersample not in (8, 16) or page.photometric not in known or page.samplesperpixel > 4:
            if page.bitspersample > 8:
                raise UnsupportedPixels("its 16-bit pixels are neither grey nor RGB")
            return None
        if page.imagewidth * page.imagelength > 2 * (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise Image.DecompressionBombError
        array = page.asarray()
        if page.axes.startswith("S"):  # one plane per channel
            array = np.moveaxis(array, 0, -1)
        array = array.reshape(*array.shape[:2], -1)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            array = np.iinfo(array.dtype).max - array
        if tuple(page.extrasamples[:1]) == (tifffile.EXTRASAMPLE.ASSOCALPHA,):
            array = _unpremultiplied(array)
        exif = Image.Exif()
        exif.update({tag: value for tag in _DESCRIPTIVE if (value := page.tags.valueof(tag))})
        return TiffPage(
            array,
            orientation=page.tags.valueof(ExifTags.Base.Orientation, 1),
            icc=page.iccprofile,
            exif=exif.tobytes() if len(exif) else None,
        )


def write_tiff(path: Path, array: np.ndarray, icc: bytes | None, exif: bytes | None) -> None:
    """Writes (H, W, C) uint8 or uint16 with deflate compression, and the descriptive part of the EXIF block."""
    channels = array.shape[-1]
    block = Image.Exif()
    block.load(exif or b"")
    tifffile.imwrite(
        path,
        array.squeeze(-1) if channels == 1 else array,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=icc,
        metadata=None,
        extratags=[(int(tag), _ASCII, 0, block[tag], True) for tag in _DESCRIPTIVE if tag in block],
    )


def _unpremultiplied(array: np.ndarray) -> np.ndarray:
    top = np.iinfo(array.dtype).max
    alpha = array[..., -1:].astype(np.float64)
    colours = (array[..., :-1] * (top / np.maximum(alpha, 1))).round().clip(0, top)
    return np.concatenate([colours.astype(array.dtype), array[..., -1:]], axis=-1)
