"""Grey and RGB TIFF files of 8 and 16 bits, through tifffile (Pillow has no 16-bit colour)."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .metadata import Metadata, upright_xmp

# Without a handler Python would print what tifffile logs of every damaged tag.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ASCII, _BYTE, _SHORT, _LONG = 2, 1, 3, 4  # TIFF data types
# Entries of the main directory that describe the photograph rather than the storage of its pixels, and their
# types.
_DESCRIPTIVE = {
    ExifTags.Base.ImageDescription: _ASCII,
    ExifTags.Base.Make: _ASCII,
    ExifTags.Base.Model: _ASCII,
    ExifTags.Base.Software: _ASCII,
    ExifTags.Base.DateTime: _ASCII,
    ExifTags.Base.Artist: _ASCII,
    ExifTags.Base.HostComputer: _ASCII,
    ExifTags.Base.Copyright: _ASCII,
    ExifTags.Base.Rating: _SHORT,
    ExifTags.Base.RatingPercent: _SHORT,
    ExifTags.Base.XPTitle: _BYTE,
    ExifTags.Base.XPComment: _BYTE,
    ExifTags.Base.XPAuthor: _BYTE,
    ExifTags.Base.XPKeywords: _BYTE,
    ExifTags.Base.XPSubject: _BYTE,
}
# Directories of their own, which an entry of the main directory has the address of.
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_XMP = 700  # tag
_REDUCED_OR_MASK = 1 | 4  # bits of the tag NewSubfileType: previews and masks, which are no pictures


@dataclass(frozen=True)
class TiffPage:
    """First page of a file, its pixels (H, W, C) as stored, not yet turned upright; and the number of pages."""

    array: np.ndarray
    orientation: int
    metadata: Metadata
    pages: int


class UnsupportedPixels(ValueError):
    """The file is intact, but its kind of pixels is not supported; the message says which kind."""


def read_tiff(data: bytes) -> TiffPage | None:
    """Reads the first page; transparency is returned as the last channel, never premultiplied.

    Returns None for files that are left to Pillow: palettes, CMYK and others of at most 8 bits.

    Raises:
        UnsupportedPixels: pixels are floating-point or wider than 16 bits, or 16-bit and neither grey nor RGB.
        Image.DecompressionBombError: there are more pixels than Pillow allows.
        Exception: any error of tifffile on a damaged file.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
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
        # A chain of pages that leads back into itself has a length, but iteration over it never ends.
        pages = islice(file.pages, len(file.pages))
        return TiffPage(
            array,
            orientation=page.tags.valueof(ExifTags.Base.Orientation, 1),
            metadata=_metadata(page, data),
            pages=sum(not int(other.keyframe.subfiletype) & _REDUCED_OR_MASK for other in pages),
        )


def read_any_pixels(data: bytes) -> np.ndarray:
    """The first page of a TIFF file as it is stored, of any data type, such as a measured kernel.

    Raises:
        Exception: any error of tifffile on a damaged file.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return file.pages.first.asarray()


def write_tiff(array: np.ndarray, metadata: Metadata) -> bytes:
    """Encodes (H, W, C) uint8 or uint16 with deflate compression, and the descriptive part of the EXIF data.

    Its description comes before the comment: a TIFF file has room for one of them.
    """
    channels = array.shape[-1]
    block = Image.Exif()
    block.load(metadata.exif or b"")
    tags = _descriptive_entries(block)
    if metadata.comment and all(tag != ExifTags.Base.ImageDescription for tag, *_ in tags):
        text = metadata.comment.encode()
        tags.append((int(ExifTags.Base.ImageDescription), _ASCII, len(text) + 1, text, True))
    if metadata.xmp:
        tags.append((_XMP, _BYTE, len(metadata.xmp), metadata.xmp, True))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        array.squeeze(-1) if channels == 1 else array,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        iccprofile=metadata.icc,
        resolution=metadata.dpi,
        software=False,
        metadata=None,
        extratags=tags,
    )
    return _with_directories(buffer.getvalue(), _directories_of(block))


def _descriptive_entries(exif: Image.Exif) -> list[tuple[int, int, int, Any, bool]]:
    """The entries of `_DESCRIPTIVE` that there are and that have the right type, as tifffile takes them."""
    entries: list[tuple[int, int, int, Any, bool]] = []
    for tag, kind in _DESCRIPTIVE.items():
        value = exif.get(tag)
        if kind == _ASCII and isinstance(value, (str, bytes)):
            # Pillow reads text as Latin-1, whatever it is; so its bytes stay as they were.
            text = value.encode("latin-1", "replace") if isinstance(value, str) else value
            entries.append((int(tag), kind, len(text) + 1, text, True))
        elif kind == _BYTE and isinstance(value, bytes):
            entries.append((int(tag), kind, len(value), value, True))
        elif kind == _SHORT and isinstance(value, int):
            entries.append((int(tag), kind, 1, value, True))
    return entries


def _directories_of(exif: Image.Exif) -> dict[int, dict[int, Any]]:
    """The entries of the directories that there are, but for addresses in the old file."""
    found = {
        tag: {key: value for key, value in exif.get_ifd(tag).items() if key != ExifTags.IFD.Interop}
        for tag in _DIRECTORIES
    }
    return {tag: entries for tag, entries in found.items() if entries}


def _with_directories(file: bytes, directories: Mapping[int, Mapping[int, Any]]) -> bytes:
    """The file with these directories, and a new main directory with their addresses, at its end.

    tifffile does not write such entries.
    """
    if not directories:
        return file
    data = bytearray(file)
    order = "<" if file.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(f"{order}H", data, place)
        entries[tag] = bytes(data[place : place + 12])
    for tag, values in directories.items():
        data += bytes(len(data) % 2)  # directories begin at even addresses
        entries[tag] = struct.pack(f"{order}HHII", tag, _LONG, 1, len(data))
        directory = ImageFileDirectory_v2(prefix=file[:2])
        directory.update(values)
        data += directory.tobytes(len(data))
    data += bytes(len(data) % 2)
    struct.pack_into(f"{order}I", data, 4, len(data))
    data += (
        struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    )
    return bytes(data)


def _exif(page: tifffile.TiffPage, data: bytes) -> bytes | None:
    exif = Image.Exif()
    for tag in _DESCRIPTIVE:
        value = page.tags.valueof(tag)
        if value and (tag != ExifTags.Base.ImageDescription or _is_described(page)):
            exif[tag] = value.encode() if isinstance(value, str) else value  # Pillow would write text as ASCII
    block = exif.tobytes() if len(exif) else b""
    try:
        file = Image.Exif()
        file.load(data)  # an EXIF block is itself a TIFF file
        exif.update(_directories_of(file))
        block = exif.tobytes() if len(exif) else b""
    except Exception:  # Pillow lets errors of damaged directories through as they are
        pass
    return block.removeprefix(b"Exif\0\0") or None


def _metadata(page: tifffile.TiffPage, data: bytes) -> Metadata:
    xmp = page.tags.valueof(_XMP)
    dpi = page.get_resolution("INCH") if page.resolutionunit != tifffile.RESUNIT.NONE else None
    return Metadata(
        icc=page.iccprofile,
        exif=_exif(page, data),
        xmp=upright_xmp(bytes(xmp)) if xmp else None,
        dpi=dpi,
        comment=page.description if _is_described(page) else None,
    )


def _is_described(page: tifffile.TiffPage) -> bool:
    """Whether the page has a description, other than those that programs write for themselves.

    Such ones tell of shapes and axes, which a result has no more.
    """
    return bool(page.description) and not (page.is_shaped or page.is_imagej or page.is_ome)


def _unpremultiplied(array: np.ndarray) -> np.ndarray:
    top = np.iinfo(array.dtype).max
    alpha = array[..., -1:].astype(np.float64)
    colours = (array[..., :-1] * (top / np.maximum(alpha, 1))).round().clip(0, top)
    return np.concatenate([colours.astype(array.dtype), array[..., -1:]], axis=-1)
