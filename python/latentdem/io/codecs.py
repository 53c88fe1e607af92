"""Image files as integer arrays and back, with colour profile, EXIF data and transparency.

Files go through Pillow, except for 16-bit PNG, which Pillow would reduce to 8 bits (imagecodecs), and TIFF
(tifffile).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

from .tiff import SIGNATURES, UnsupportedPixels, read_tiff, write_tiff

# Format family -> suffixes of its files, the usual one first.
WRITABLE = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
_WITH_ALPHA = {"PNG", "TIFF", "WEBP", "BMP"}


@dataclass(frozen=True)
class Decoded:
    """The contents of an image file.

    Attributes:
        array: (H, W, C) uint8 or uint16, upright; C = 1 or 3, and one more with transparency.
        family: name of the format in Pillow, such as "PNG".
        icc: colour profile, None without one.
        exif: EXIF block without the orientation (the pixels are upright), None without one.
    """

    array: np.ndarray
    family: str
    icc: bytes | None
    exif: bytes | None


def decode(path: Path) -> Decoded:
    """Reads the first image of a file.

    Raises:
        UnsupportedPixels: floating-point or 32-bit pixels.
        Exception: any error of a decoder on a damaged file.
    """
    with path.open("rb") as file:
        head = file.read(25)
    if head[:4] in SIGNATURES:
        page = read_tiff(path)
        if page is not None:
            return Decoded(_upright(page.array, page.orientation), "TIFF", page.icc, page.exif)
    with warnings.catch_warnings():
        # Large photographs are accepted up to twice the size of the warning, where Pillow raises an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            family = "JPEG" if image.format == "MPO" else str(image.format)
            if family == "PNG" and head[24] == 16:  # the bit depth; Pillow opens 16-bit colour as 8-bit
                return _decode_16_bit_png(path, image)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise UnsupportedPixels("its pixels are floating-point or wider than 16 bits")
            upright = ImageOps.exif_transpose(image)
            icc, exif = image.info.get("icc_profile"), _exif(image)
            if upright.mode == "CMYK":
                upright, icc = _from_cmyk(upright, icc)
            mode = _eight_bit_mode(upright)
            array = np.asarray(upright if upright.mode == mode else upright.convert(mode))
            return Decoded(array.reshape(*array.shape[:2], -1), family, icc, exif)


def _decode_16_bit_png(path: Path, image: Image.Image) -> Decoded:
    import imagecodecs

    array = imagecodecs.png_decode(path.read_bytes())
    array = _upright(array.reshape(*array.shape[:2], -1), image.getexif().get(ExifTags.Base.Orientation, 1))
    return Decoded(array, "PNG", image.info.get("icc_profile"), _exif(image))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array upright, given its EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _exif(image: Image.Image) -> bytes | None:
    exif = image.getexif()
    exif.pop(ExifTags.Base.Orientation, None)
    return exif.tobytes() if len(exif) else None


def _from_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Converts CMYK to RGB pixels and their profile, by the profile of the file where it has one."""
    if icc is None:
        return image.convert("RGB"), None
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None  # only in-place conversion returns None
    return converted, ImageCms.ImageCmsProfile(target).tobytes()


def _eight_bit_mode(image: Image.Image) -> str:
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return "LA" if grey else "RGBA"
    return "L" if grey else "RGB"


def family_of(path: Path) -> str | None:
    """Format family of the suffix of `path`; None if such files are not written."""
    return next((name for name, suffixes in WRITABLE.items() if path.suffix.lower() in suffixes), None)


def encode(path: Path, array: np.ndarray, icc: bytes | None = None, exif: bytes | None = None) -> None:
    """Writes (H, W, C) uint8 or uint16, C = 1 to 4, in the format of the suffix of `path`.

    Where the format requires it, 16 bits are reduced to 8 and transparency is dropped. A TIFF keeps only
    camera, date and authors of the EXIF data.
    """
    family = family_of(path)
    assert family is not None, path
    channels = array.shape[-1]
    if family not in _WITH_ALPHA and channels in (2, 4):
        array = array[..., :-1]
    if family == "TIFF":
        write_tiff(path, array, icc, exif)
        return
    if family == "PNG" and array.dtype == np.uint16:
        _encode_16_bit_png(path, array, icc, exif)
        return
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    if family == "BMP" and image.mode == "LA":
        image = image.convert("RGBA")
    extra = {name: value for name, value in (("icc_profile", icc), ("exif", exif)) if value}
    image.save(path, format=family, **_SAVE_OPTIONS.get(family, {}), **extra)


def _encode_16_bit_png(path: Path, array: np.ndarray, icc: bytes | None, exif: bytes | None) -> None:
    import imagecodecs

    data = imagecodecs.png_encode(np.ascontiguousarray(array.squeeze(-1) if array.shape[-1] == 1 else array))
    chunks = b""
    if icc:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += _png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    path.write_bytes(data[:33] + chunks + data[33:])  # right after the header chunk


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
