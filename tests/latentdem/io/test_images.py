from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms
from torch import Tensor

from latentdem.io.codecs import decode
from latentdem.io.images import read_image, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
Scene = Callable[..., Tensor]


def pixels(scene: Tensor, bits: int = 8) -> np.ndarray:
    """(H, W, C) integers of a scene."""
    top = 2**bits - 1
    array = ((scene[0].permute(1, 2, 0).numpy() + 1) / 2 * top).round()
    return array.astype(np.uint8 if bits == 8 else np.uint16)


def with_alpha(array: np.ndarray) -> np.ndarray:
    height, width = array.shape[:2]
    ramp = np.linspace(0, np.iinfo(array.dtype).max, height * width).astype(array.dtype)
    return np.concatenate([array, ramp.reshape(height, width, 1)], axis=-1)


def save_16_bit(path: Path, array: np.ndarray) -> None:
    squeezed = np.ascontiguousarray(array.squeeze(-1) if array.shape[-1] == 1 else array)
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(squeezed))
    else:
        colour = array.shape[-1] >= 3
        extra = ["unassalpha"] if array.shape[-1] in (2, 4) else None
        tifffile.imwrite(path, squeezed, photometric="rgb" if colour else "minisblack", extrasamples=extra)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_lossless_formats_are_read_back_exactly(
    tmp_path: Path, scene: Scene, channels: int, alpha: bool, suffix: str, bits: int
) -> None:
    array = pixels(scene(channels=channels), bits)
    array = with_alpha(array) if alpha else array
    source = tmp_path / f"in{suffix}"
    if bits == 16:
        save_16_bit(source, array)
    else:
        Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(source)

    file = read_image(source)
    assert file.pixels.shape == (1, channels, 40, 48)
    assert file.pixels.dtype == torch.float32
    assert (file.bits, file.suffix) == (bits, suffix)
    assert (file.alpha is not None) == alpha

    written = tmp_path / f"out{suffix}"
    write_image(written, file.pixels, like=file)
    np.testing.assert_array_equal(decode(written).array, array)


@pytest.mark.parametrize(
    ("suffix", "family"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP")]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_other_formats_keep_family_and_look(
    tmp_path: Path, scene: Scene, suffix: str, family: str, channels: int
) -> None:
    smooth = torch.nn.functional.avg_pool2d(scene(80, 96, channels), 9, stride=1, padding=4)
    source = tmp_path / f"in{suffix}"
    Image.fromarray(pixels(smooth).squeeze()).save(source, family)
    file = read_image(source)
    written = tmp_path / f"out{file.suffix}"
    write_image(written, file.pixels, like=file)
    again = read_image(written)
    assert (again.family, again.suffix) == (family, suffix)
    assert (again.pixels - file.pixels).abs().mean() < 0.02
    assert Image.open(written).format == family


def test_value_range(tmp_path: Path) -> None:
    array = np.zeros((20, 20, 3), np.uint8)
    array[10:] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    x = read_image(tmp_path / "a.png").pixels
    assert (x.min(), x.max()) == (-1, 1)


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    image = torch.cat([torch.full((1, 1, 10, 20), -1.5), torch.full((1, 1, 10, 20), 1.5)], dim=2)
    write_image(tmp_path / "a.png", image)
    assert decode(tmp_path / "a.png").array.ravel()[[0, -1]].tolist() == [0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "deep.png", "deep.tif"])
def test_orientation_is_applied_and_not_kept(tmp_path: Path, orientation: int, name: str) -> None:
    upright = np.zeros((32, 48), np.uint16)
    upright[:16, :24] = 65535  # the upper left quarter is white
    stored = upright
    # What a camera stores so that the given orientation turns it upright: the inverse of reading.
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (5, 6, 7, 8):
        stored = stored.T
    stored = np.ascontiguousarray(stored)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / name
    if name == "deep.tif":
        tag = (274, 3, 1, orientation, True)
        tifffile.imwrite(path, np.dstack([stored] * 3), photometric="rgb", extratags=[tag])
    elif name == "deep.png":
        Image.fromarray(stored).save(path, exif=exif)
    else:
        Image.fromarray((stored // 257).astype(np.uint8)).save(path, exif=exif)

    file = read_image(path)
    assert file.bits == (16 if name.startswith("deep") else 8)
    assert file.pixels.shape[-2:] == (32, 48)
    expected = torch.from_numpy(upright.astype(np.float32) / 32767.5 - 1)
    assert (file.pixels - expected).abs().mean() < 0.05

    written = path.with_stem("out")
    write_image(written, file.pixels, like=file)
    assert Image.open(written).getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert (read_image(written).pixels - expected).abs().mean() < 0.05


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "deep.png", "deep.tif"])
def test_profile_and_exif_are_kept(tmp_path: Path, scene: Scene, name: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    exif[ExifTags.Base.Orientation] = 1
    path = tmp_path / name
    if name == "deep.tif":
        tifffile.imwrite(
            path,
            pixels(scene(), 16),
            photometric="rgb",
            iccprofile=SRGB,
            extratags=[(271, 2, 0, "A camera", True)],
        )
    elif name == "deep.png":
        grey = pixels(scene(channels=1), 16).squeeze()
        Image.fromarray(grey).save(path, exif=exif, icc_profile=SRGB)
    else:
        Image.fromarray(pixels(scene())).save(path, exif=exif, icc_profile=SRGB)
    file = read_image(path)
    written = path.with_stem("out")
    write_image(written, file.pixels, like=file)
    with Image.open(written) as image:
        assert image.info["icc_profile"] == SRGB
        assert image.getexif()[ExifTags.Base.Make] == "A camera"


def test_sixteen_bits_become_eight_where_the_format_has_no_more(tmp_path: Path, scene: Scene) -> None:
    save_16_bit(tmp_path / "a.png", with_alpha(pixels(scene(), 16)))
    file = read_image(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="without its transparency, which JPEG does not hold; name a .png"):
        write_image(tmp_path / "out.jpg", file.pixels, like=file)
    again = read_image(tmp_path / "out.jpg")
    assert again.bits == 8
    assert again.alpha is None


@pytest.mark.filterwarnings("error")
def test_opacity_everywhere_is_no_loss(tmp_path: Path, scene: Scene) -> None:
    array = pixels(scene())
    Image.fromarray(np.dstack([array, np.full_like(array[..., :1], 255)])).save(tmp_path / "a.png")
    file = read_image(tmp_path / "a.png")
    write_image(tmp_path / "out.jpg", file.pixels, like=file)


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, scene: Scene, transparent: bool) -> None:
    image = Image.fromarray(pixels(scene())).quantize(16)
    image.save(tmp_path / "a.png", **({"transparency": 0} if transparent else {}))
    file = read_image(tmp_path / "a.png")
    assert file.pixels.shape == (1, 3, 40, 48)
    assert (file.alpha is not None) == transparent
    np.testing.assert_array_equal(pixels(file.pixels), np.asarray(image.convert("RGB")))


def test_one_bit_image_is_grey(tmp_path: Path, scene: Scene) -> None:
    Image.fromarray(pixels(scene(channels=1)).squeeze() > 128).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").pixels.unique().tolist() == [-1, 1]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 20), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    file = read_image(tmp_path / "a.jpg")
    assert file.pixels.shape == (1, 3, 20, 20)
    assert torch.allclose(file.pixels.mean((0, 2, 3)), torch.tensor([-1.0, 1.0, 1.0]), atol=0.05)


def test_gif_is_read_and_would_be_written_as_png(tmp_path: Path, scene: Scene) -> None:
    Image.fromarray(pixels(scene())).save(tmp_path / "a.gif")
    assert read_image(tmp_path / "a.gif").suffix == ".png"


def test_white_is_zero_tiff(tmp_path: Path) -> None:
    array = np.full((20, 20), 1000, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    assert read_image(tmp_path / "a.tif").pixels.mean() > 0.9


@pytest.mark.parametrize("mode", ["P", "CMYK", "1"])
def test_unsupported_tiff_is_refused(tmp_path: Path, scene: Scene, mode: str) -> None:
    image = Image.fromarray(pixels(scene())).convert(mode)
    image.save(tmp_path / "a.tif")
    expected = np.asarray(image.convert("L" if mode == "1" else "RGB")).reshape(40, 48, -1)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif").array, expected)


def test_premultiplied_transparency(tmp_path: Path, scene: Scene) -> None:
    array = with_alpha(pixels(scene(), 16)).astype(np.float64)
    array[..., 3] = array[..., 3].clip(6000)
    stored = np.concatenate([array[..., :3] * array[..., 3:] / 65535, array[..., 3:]], axis=-1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored.round().astype(np.uint16), photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(decode(path).array - array).max() < 8


def test_planar_tiff(tmp_path: Path, scene: Scene) -> None:
    array = pixels(scene(), 16)
    planes = np.moveaxis(array, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(decode(tmp_path / "a.tif").array, array)
