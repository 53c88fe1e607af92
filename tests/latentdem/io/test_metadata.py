"""What files say besides their pixels: kept where it can be, and never a reason to refuse or lose a picture."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.images import SUFFIXES, image_names, read_image, write_image
from latentdem.io.metadata import Metadata

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="1" dc:title="T"/></x:xmpmeta>'
Scene = Callable[..., Tensor]


def exif_of(*entries: tuple[int, int, bytes], gps: tuple[int, int, bytes] | None = None) -> bytes:
    """A little-endian EXIF block of SHORT entries (tag, count, value), and one entry in the GPS directory."""
    count = len(entries) + (gps is not None)
    block = b"II*\0" + struct.pack("<IH", 8, count)
    for tag, number, value in entries:
        block += struct.pack("<HHI", tag, 3, number) + value.ljust(4, b"\0")
    if gps is not None:
        block += struct.pack("<HHII", ExifTags.IFD.GPSInfo, 4, 1, len(block) + 12 + 4)
        tag, number, value = gps
        return block + b"\0" * 4 + struct.pack("<HHHI", 1, tag, 3, number) + value.ljust(4, b"\0") + b"\0" * 4
    return block + b"\0" * 4


def saved(folder: Path, name: str, scene: Scene, **options: object) -> Path:
    path = folder / name
    array = ((scene()[0].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
    Image.fromarray(array).save(path, **options)
    return path


def test_entry_that_does_not_follow_the_standard_is_kept(tmp_path: Path, scene: Scene) -> None:
    """GPSAltitudeRef as a SHORT of 256, which Pillow cannot encode as a BYTE."""
    orientation = (ExifTags.Base.Orientation, 1, struct.pack("<H", 6))
    block = exif_of(orientation, gps=(5, 1, struct.pack("<H", 256)))
    source = read_image(saved(tmp_path, "a.jpg", scene, exif=b"Exif\0\0" + block))
    assert source.pixels.shape[-2:] == (48, 40)
    write_image(tmp_path / "b.jpg", source.pixels, like=source)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif().get(ExifTags.Base.Orientation) == 1
        assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[5] == 256


@pytest.mark.parametrize(
    "block", [b"", b"II*", b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff\x01\x12"]
)
def test_damaged_exif_is_no_reason_to_refuse(tmp_path: Path, scene: Scene, block: bytes) -> None:
    source = read_image(saved(tmp_path, "a.jpg", scene, exif=b"Exif\0\0" + block))
    write_image(tmp_path / "b.jpg", source.pixels, like=source)
    assert read_image(tmp_path / "b.jpg").pixels.shape == source.pixels.shape


@pytest.mark.parametrize("first", ["a.jpg", "a.tif"])
@pytest.mark.parametrize("second", ["b.tif", "deep.tif", "b.jpg"])
def test_exposure_and_place_are_kept_by_tiff(tmp_path: Path, scene: Scene, first: str, second: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.125, ExifTags.Base.ISOSpeedRatings: 400}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (48.0, 1.0, 2.5)}
    source = read_image(saved(tmp_path, "x.jpg", scene, exif=exif.tobytes()))
    write_image(tmp_path / first, source.pixels, like=source)
    source = read_image(tmp_path / first)
    if second.startswith("deep"):
        source = replace(source, bits=16)
    write_image(tmp_path / second, source.pixels, like=source)
    kept = Image.Exif()
    kept.load(read_image(tmp_path / second).metadata.exif)
    assert kept[ExifTags.Base.Make] == "A camera"
    assert dict(kept.get_ifd(ExifTags.IFD.Exif)) == exif[ExifTags.IFD.Exif]
    assert dict(kept.get_ifd(ExifTags.IFD.GPSInfo)) == exif[ExifTags.IFD.GPSInfo]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("second", ["b.tif", "b.jpg"])
def test_tiff_keeps_what_its_main_directory_says(tmp_path: Path, scene: Scene, bits: int, second: str) -> None:
    tags = ExifTags.Base
    said: dict[int, object] = dict.fromkeys((tags.Make, tags.Model, tags.Software, tags.HostComputer), "A name")
    said |= dict.fromkeys((tags.ImageDescription, tags.Artist, tags.Copyright), "Zoë, 日本".encode())
    said |= {tags.DateTime: "2024:05:06 07:08:09", tags.Rating: 4, tags.XPTitle: "Title".encode("utf-16-le")}
    exif = Image.Exif()
    exif.update(said)
    source = read_image(saved(tmp_path, "x.jpg", scene, exif=exif.tobytes(), comment=b"a comment"))
    write_image(tmp_path / "a.tif", source.pixels, like=replace(source, bits=bits))
    source = read_image(tmp_path / "a.tif")
    assert source.metadata.comment == "Zoë, 日本"
    write_image(tmp_path / second, source.pixels, like=source)
    kept = Image.Exif()
    kept.load(read_image(tmp_path / second).metadata.exif)
    for tag, value in said.items():
        found = kept[tag]
        assert found == (
            value.decode("latin-1") if isinstance(found, str) and isinstance(value, bytes) else value
        )


def test_tiff_keeps_an_entry_that_does_not_follow_the_standard(tmp_path: Path, scene: Scene) -> None:
    block = exif_of(gps=(5, 1, struct.pack("<H", 256)))
    source = read_image(saved(tmp_path, "a.jpg", scene, exif=b"Exif\0\0" + block))
    write_image(tmp_path / "b.tif", source.pixels, like=source)
    with Image.open(tmp_path / "b.tif") as image:
        assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[5] == 256
    again = read_image(tmp_path / "b.tif")
    assert torch.equal(again.pixels, source.pixels)


@pytest.mark.parametrize("profile", ["rgb", "damaged", "truncated"])
def test_cmyk_with_a_useless_profile_is_converted_without_it(tmp_path: Path, profile: str) -> None:
    icc = {"rgb": SRGB, "damaged": b"no profile", "truncated": SRGB[:100]}[profile]
    Image.new("CMYK", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.jpg", icc_profile=icc)
    source = read_image(tmp_path / "a.jpg")
    assert source.metadata.icc is None
    assert torch.allclose(source.pixels.mean((0, 2, 3)), torch.tensor([-1.0, 1.0, 1.0]), atol=0.05)


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.webp", "b.tif", "b.bmp"])
def test_exif_that_is_too_long_for_the_format_does_not_lose_the_picture(
    tmp_path: Path, scene: Scene, name: str
) -> None:
    long = exif_of() + b"\1" * 70_000
    source = read_image(saved(tmp_path, "a.png", scene, exif=long))
    assert source.metadata.exif is not None
    assert len(source.metadata.exif) > 70_000
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_image(tmp_path / name, source.pixels, like=source)
    assert [("without its EXIF" in str(one.message)) for one in caught] == [True] * (name == "b.jpg")
    assert read_image(tmp_path / name).pixels.shape == source.pixels.shape


def test_only_what_the_format_cannot_hold_is_left_out(tmp_path: Path, scene: Scene) -> None:
    source = read_image(saved(tmp_path, "a.png", scene, icc_profile=SRGB, dpi=(300, 300)))
    source = replace(source, metadata=replace(source.metadata, exif=bytes(70_000), comment="kept"))
    with pytest.warns(UserWarning, match="without its EXIF data"):
        write_image(tmp_path / "b.jpg", source.pixels, like=source)
    kept = read_image(tmp_path / "b.jpg").metadata
    assert (kept.icc, kept.exif, kept.comment, kept.dpi) == (SRGB, None, "kept", (300, 300))


@pytest.mark.parametrize("first", ["a.png", "a.jpg", "a.tif", "a.webp"])
@pytest.mark.parametrize("second", ["b.png", "b.jpg", "b.tif", "b.webp", "deep.png", "deep.tif"])
def test_xmp_resolution_and_comment_are_kept(tmp_path: Path, scene: Scene, first: str, second: str) -> None:
    everything = Metadata(SRGB, exif_of(), XMP, (300.0, 150.0), "a comment, ä")
    like = replace(read_image(saved(tmp_path, "x.png", scene)), metadata=everything)
    write_image(tmp_path / first, like.pixels, like=like)
    source = read_image(tmp_path / first)
    if second.startswith("deep"):
        source = replace(source, bits=16)
    write_image(tmp_path / second, source.pixels, like=source)
    kept = read_image(tmp_path / second).metadata
    assert (kept.icc, kept.xmp) == (SRGB, XMP)
    if "webp" not in first + second:  # a format without either
        assert kept.dpi == pytest.approx((300, 150), abs=0.02)
        assert kept.comment == "a comment, ä"


def test_orientation_in_xmp_is_applied_and_not_kept(tmp_path: Path, scene: Scene) -> None:
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.replace(b'Orientation="1"', b'Orientation="6"').decode())
    source = read_image(saved(tmp_path, "a.png", scene, pnginfo=texts))
    assert source.pixels.shape[-2:] == (48, 40)
    assert source.metadata.xmp == XMP


def test_exif_in_the_text_of_an_old_png(tmp_path: Path, scene: Scene) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    data = exif.tobytes()
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    source = read_image(saved(tmp_path, "a.png", scene, pnginfo=texts))
    write_image(tmp_path / "b.jpg", source.pixels, like=source)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif()[ExifTags.Base.Make] == "A camera"


def test_descriptions_that_programs_write_are_not_kept(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint8), imagej=True)
    assert read_image(tmp_path / "a.tif").metadata.comment is None


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png", "a.gif"])
def test_further_pages_are_not_left_out_in_silence(tmp_path: Path, scene: Scene, name: str) -> None:
    pages = [Image.fromarray(np.full((20, 24, 3), level, np.uint8)) for level in (10, 100, 200)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="holds 3 pictures; only the first one is read"):
        read_image(tmp_path / name)


def test_previews_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((40, 40), np.uint8), photometric="minisblack", metadata=None)
        file.write(np.zeros((20, 20), np.uint8), photometric="minisblack", metadata=None, subfiletype=1)
    assert read_image(tmp_path / "a.tif").pixels.shape[-2:] == (40, 40)


SHORT = ("gif", "avif", "jp2", "tga", "dib", "jpe", "jfif", "ppm", "apng")


@pytest.mark.parametrize("suffix", SHORT)
def test_pictures_of_every_suffix_are_found_and_read(tmp_path: Path, scene: Scene, suffix: str) -> None:
    buffer, family = io.BytesIO(), Image.registered_extensions()[f".{suffix}"]
    array = np.full((20, 24, 3), 100, np.uint8)
    Image.fromarray(array).save(buffer, family)
    (tmp_path / f"a.{suffix.upper()}").write_bytes(buffer.getvalue())
    assert image_names(tmp_path) == [f"a.{suffix.upper()}"]
    source = read_image(tmp_path / f"a.{suffix.upper()}")
    assert source.pixels.shape == (1, 3, 20, 24)
    write_image(tmp_path / f"b{source.suffix}", source.pixels, like=source)


def test_files_that_cannot_be_read_are_in_the_list_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(12))
    (tmp_path / "b.nef").write_bytes(b"II*\0" + bytes(20))
    assert image_names(tmp_path) == ["a.heic", "b.nef"]
    assert {".heic", ".nef"} <= SUFFIXES
    with pytest.raises(UserError, match=r"\(pip install pi-heif\); install it, or convert the picture\.$"):
        read_image(tmp_path / "a.heic")
    with pytest.raises(UserError, match="raw file of a camera"):
        read_image(tmp_path / "b.nef")


def test_pages_that_lead_back_into_themselves_end(tmp_path: Path) -> None:
    """The second page names itself as the next one, as in a damaged file."""
    path = tmp_path / "loop.tif"
    with tifffile.TiffWriter(path) as writer:
        for level in (10, 100):
            writer.write(np.full((20, 24, 3), level, np.uint8), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[1].offset
        order = file.byteorder
    data = bytearray(path.read_bytes())
    (tags,) = struct.unpack_from(f"{order}H", data, offset)
    struct.pack_into(f"{order}I", data, offset + 2 + 12 * tags, offset)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="holds 2 pictures"):
        assert read_image(path).pixels.shape == (1, 3, 20, 24)


def test_what_tifffile_logs_of_damaged_files_is_not_printed() -> None:
    script = "import logging, latentdem.io.images; logging.getLogger('tifffile').error('damaged tag')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
