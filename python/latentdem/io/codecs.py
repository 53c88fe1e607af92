"""Image files as integer arrays and back, with transparency and metadata.

Files go through Pillow, except for 16-bit PNG, which Pillow would reduce to 8 bits (imagecodecs), and TIFF
(tifffile).
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from .metadata import Metadata, orientation_of
from .tiff import SIGNATURES, UnsupportedPixels, read_tiff, write_tiff

# Format family -> suffixes of its files, the usual one first.
WRITABLE = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
}
_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
_WITH_ALPHA = {"PNG", "TIFF", "WEBP", "BMP"}
_ONE_PICTURE = {"JPEG", "ICO", "ICNS"}  # formats whose further frames are previews, gain maps and sizes
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_TOO_DEEP = "its pixels are floating-point or wider than 16 bits"


@dataclass(frozen=True)
class Decoded:
    """The contents of an image file.

    Attributes:
        array: (H, W, C) uint8 or uint16, upright; C = 1 or 3, and one more with transparency.
        family: name of the format in Pillow, such as "PNG".
        metadata: what a result keeps.
        pages: number of pictures in the file, of which this is the first.
    """

    array: np.ndarray
    family: str
    metadata: Metadata
    pages: int = 1


def decode(source: Path | bytes) -> Decoded:
    """Reads the first image of a file, or of the contents of one.

    Raises:
        UnsupportedPixels: floating-point or 32-bit pixels.
        Exception: any error of a decoder on a damaged file.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    if data[:4] in SIGNATURES:
        page = read_tiff(data)
        if page is not None:
            return Decoded(_upright(page.array, page.orientation), "TIFF", page.metadata, page.pages)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _register_heif()
    with warnings.catch_warnings():
        # Large photographs are accepted up to twice the size of the warning, where Pillow raises an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "PNG" and data[24] == 16:  # the bit depth; Pillow opens 16-bit colour as 8-bit
                return _decode_16_bit_png(data, image)
            return decode_pillow(image)


def decode_pillow(image: Image.Image) -> Decoded:
    """Reads the current picture of an image opened or made by Pillow.

    Raises:
        UnsupportedPixels: pixels without a range, or wider than 16 bits.
    """
    family = "JPEG" if image.format == "MPO" else str(image.format)
    pages = 1 if family in _ONE_PICTURE else getattr(image, "n_frames", 1)
    orientation = orientation_of(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        array = _sixteen_bits(image)
        metadata = Metadata.of(image)
    else:
        picture = image
        metadata = Metadata.of(image)
        if picture.mode == "CMYK":
            picture, icc = _from_cmyk(picture, metadata.icc)
            metadata = replace(metadata, icc=icc)
        if picture.mode in ("La", "RGBa"):  # premultiplied; these convert to nothing else
            picture = picture.convert(picture.mode.upper())
        mode = _eight_bit_mode(picture)
        array = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    return Decoded(_upright(array.reshape(*array.shape[:2], -1), orientation), family, metadata, pages)


def _sixteen_bits(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    if image.mode == "F" or array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        raise UnsupportedPixels(_TOO_DEEP)
    return array.astype(np.uint16)


def _decode_16_bit_png(data: bytes, image: Image.Image) -> Decoded:
    import imagecodecs

    array = imagecodecs.png_decode(data)
    array = _upright(array.reshape(*array.shape[:2], -1), orientation_of(image))
    image.load()  # text after the pixels
    return Decoded(array, "PNG", Metadata.of(image), getattr(image, "n_frames", 1))


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array upright, given its EXIF orientation of 1 to 8."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _from_cmyk(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Converts CMYK to RGB pixels and their profile, by the profile of the file where it has a usable one."""
    if icc is not None:
        target = ImageCms.createProfile("sRGB")
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):  # damaged, or the profile of RGB pixels
            converted = None
        if converted is not None:
            return converted, ImageCms.ImageCmsProfile(target).tobytes()
    return image.convert("RGB"), None


def _eight_bit_mode(image: Image.Image) -> str:
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        return "LA" if grey else "RGBA"
    return "L" if grey else "RGB"


def _register_heif() -> None:
    """Makes Pillow read HEIC, by whichever of the two packages for it is installed."""
    for package in ("pillow_heif", "pi_heif"):
        try:
            import_module(package).register_heif_opener()
        except ImportError:
            continue
        return
    raise ModuleNotFoundError("HEIC pictures need the package pi-heif (pip install pi-heif)")


def family_of(path: Path) -> str | None:
    """Format family of the suffix of `path`; None if such files are not written."""
    return next((name for name, suffixes in WRITABLE.items() if path.suffix.lower() in suffixes), None)


def encode(path: Path, array: np.ndarray, metadata: Metadata | None = None) -> None:
    """Writes (H, W, C) uint8 or uint16, C = 1 to 4, in the format of the suffix of `path`.

    Where the format requires it, 16 bits are reduced to 8. A TIFF keeps camera, date, authors, exposure and
    place of the EXIF data. Transparency and metadata that the format cannot hold are left out, with a warning:
    a picture is worth more than they are.
    """
    family = family_of(path)
    assert family is not None, path
    path.write_bytes(_encode_what_fits(family, array, metadata or Metadata()))


def _encode_what_fits(family: str, array: np.ndarray, metadata: Metadata) -> bytes:
    if family not in _WITH_ALPHA and array.shape[-1] in (2, 4):
        array, alpha = array[..., :-1], array[..., -1]
        if (alpha < np.iinfo(alpha.dtype).max).any():
            warnings.warn(
                f"The picture is written without its transparency, which {family} does not hold; name a .png "
                "to keep it.",
                UserWarning,
                stacklevel=2,
            )
    try:
        return _encode(family, array, metadata)
    except Exception:  # Pillow and tifffile raise nearly anything for metadata that do not fit
        kept = Metadata()
    for field in fields(Metadata):
        value = getattr(metadata, field.name)
        more = replace(kept, **{field.name: value})
        try:
            _encode(family, array[:16, :16], more)
        except Exception as error:
            warnings.warn(
                f"The picture is written without its {field.name.upper()} data: {error}.",
                UserWarning,
                stacklevel=2,
            )
        else:
            kept = more
    return _encode(family, array, kept)


def _encode(family: str, array: np.ndarray, metadata: Metadata) -> bytes:
    if family == "TIFF":
        return write_tiff(array, metadata)
    if family == "PNG" and array.dtype == np.uint16:
        return _encode_16_bit_png(array, metadata)
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    image = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    if family == "BMP" and image.mode == "LA":
        image = image.convert("RGBA")
    options: dict[str, Any] = {
        **_SAVE_OPTIONS.get(family, {}),
        "icc_profile": metadata.icc,
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "comment": metadata.comment,
        "dpi": metadata.dpi,
    }
    if family == "JPEG":
        options["exif"] = metadata.exif and b"Exif\0\0" + metadata.exif
        options["comment"] = metadata.comment and metadata.comment.encode()
    if family == "PNG":
        options["pnginfo"] = _png_texts(metadata)
    buffer = io.BytesIO()
    image.save(buffer, format=family, **{name: value for name, value in options.items() if value is not None})
    return buffer.getvalue()


def _png_texts(metadata: Metadata) -> PngInfo:
    texts = PngInfo()
    if metadata.comment:
        texts.add_itxt("Comment", metadata.comment)
    if metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", errors="replace"))
    return texts


def _encode_16_bit_png(array: np.ndarray, metadata: Metadata) -> bytes:
    """The pixels from imagecodecs, and the chunks of metadata from an 8-bit file of Pillow."""
    import imagecodecs

    pixels = np.ascontiguousarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    data = bytes(imagecodecs.png_encode(pixels))
    small = _encode("PNG", np.zeros((1, 1, 1), np.uint8), metadata)
    return data[:33] + b"".join(_metadata_chunks(small)) + data[33:]  # right after the header chunk


def _metadata_chunks(png: bytes) -> list[bytes]:
    """All chunks of a PNG file but those of its pixels."""
    chunks, place = [], 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        chunk = png[place : place + length + 12]
        if chunk[4:8] not in (b"IHDR", b"IDAT", b"IEND"):
            chunks.append(chunk)
        place += len(chunk)
    return chunks
