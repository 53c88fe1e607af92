"""What a picture's file says besides its pixels: colour profile, EXIF, XMP, resolution, comment."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from PIL import ExifTags, Image

_EXIF_HEAD = b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')


@dataclass(frozen=True)
class Metadata:
    """Data that a result keeps; None for what a file does not have.

    Attributes:
        icc: colour profile.
        exif: EXIF block without "Exif" in front of it, with the orientation "upright".
        xmp: XMP packet, with the same orientation.
        dpi: pixels per inch, horizontally and vertically.
        comment: free text.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: str | None = None

    @classmethod
    def of(cls, image: Image.Image) -> Metadata:
        """That of a picture opened by Pillow. What is damaged counts as missing."""
        info = image.info
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
        comment = info.get("comment") or info.get("Comment")
        return cls(
            icc=info.get("icc_profile") or None,
            exif=_exif(image),
            xmp=upright_xmp(xmp.encode() if isinstance(xmp, str) else xmp) if xmp else None,
            dpi=_dpi(info.get("dpi")),
            comment=_text(comment),
        )


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation from 1 to 8; 1 where there is none or it cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow lets errors of damaged blocks through as they are
        return 1
    return orientation if orientation in range(1, 9) else 1


def upright_exif(block: bytes) -> bytes | None:
    """An EXIF block with the orientation 1 and every other byte as it was; None if it is damaged.

    Encoding the entries again would lose those that do not follow the standard, and the notes of camera makers.
    """
    data = bytearray(block.removeprefix(_EXIF_HEAD))
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, place)
            if tag == ExifTags.Base.Orientation:
                struct.pack_into(f"{order}{'I' if kind == 4 else 'H'}", data, place + 8, 1)
    except (KeyError, struct.error):
        return None
    return bytes(data)


def upright_xmp(packet: bytes) -> bytes:
    """An XMP packet with the orientation 1."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def _exif(image: Image.Image) -> bytes | None:
    block = image.info.get("exif")
    if block is None:
        # Old PNG files hold the block as text, which only Pillow's own reader understands.
        if "Raw profile type exif" not in image.info:
            return None
        try:
            block = image.getexif().tobytes()
        except Exception:
            return None
    return upright_exif(block)


def _dpi(value: object) -> tuple[float, float] | None:
    if not (isinstance(value, tuple) and len(value) == 2):
        return None
    try:
        horizontal, vertical = float(value[0]), float(value[1])
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (horizontal, vertical) if 0 < min(horizontal, vertical) < float("inf") else None


def _text(comment: object) -> str | None:
    if isinstance(comment, bytes):
        comment = comment.rstrip(b"\0").decode("utf-8", errors="replace")
    return str(comment) if comment else None
