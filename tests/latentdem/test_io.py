from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms
from torch import Tensor

from latentdem.errors import UserError
from latentdem.image_codecs import decode
from latentdem.io import check_output, read_image, read_kernel, to_tensor, write_image, write_kernel

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
def test_lossless_formats_come_back_exactly(
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
    write_image(tmp_path / "out.jpg", file.pixels, like=file)
    again = read_image(tmp_path / "out.jpg")
    assert again.bits == 8
    assert again.alpha is None


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
def test_tiff_of_other_kinds(tmp_path: Path, scene: Scene, mode: str) -> None:
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


def broken(kind: str, folder: Path) -> Path:
    """A file that cannot be used."""
    path = folder / f"{kind}.png"
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no image")
    elif kind == "truncated_jpeg":
        Image.fromarray(noise).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue()[:1500])
    elif kind == "truncated_png":
        Image.fromarray(noise).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue()[:1500])
    elif kind == "truncated_16_bit":
        path.write_bytes(imagecodecs.png_encode(noise.astype(np.uint16) * 257)[:1500])
    elif kind == "truncated_tiff":
        tifffile.imwrite(path, noise.astype(np.uint16) * 257, photometric="rgb")
        path.write_bytes(path.read_bytes()[:3000])
    elif kind == "cmyk16":
        tifffile.imwrite(path, np.zeros((20, 20, 4), np.uint16), photometric="separated")
    elif kind == "small":
        Image.fromarray(noise[:8]).save(path)
    elif kind == "float":
        Image.fromarray(noise[..., 0].astype(np.float32)).save(path, "TIFF")
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "not an image"),
        ("truncated_jpeg", "damaged or incomplete"),
        ("truncated_png", "damaged or incomplete"),
        ("truncated_16_bit", "damaged or incomplete"),
        ("truncated_tiff", "damaged or incomplete"),
        ("small", "64 x 8 pixels; at least 16 x 16"),
        ("cmyk16", "neither grey nor RGB"),
        ("float", "convert it to 8 or 16 bits"),
    ],
)
def test_unusable_files(tmp_path: Path, kind: str, sentence: str) -> None:
    path = broken(kind, tmp_path)
    with pytest.raises(UserError, match=sentence) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # a warning, which is no reason to refuse
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="million pixels"):
        read_image(tmp_path / "a.png")


def test_no_read_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)  # chmod does not stop a test that runs as root
    with pytest.raises(UserError, match="permission denied"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_is_left_of_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene, error: BaseException
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"what was there")

    def half(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
        write_image(target, scene())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"what was there"


def test_writing_refuses_what_is_not_finite_and_unknown_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        write_image(tmp_path / "a.png", torch.full((1, 1, 20, 20), torch.nan))
    for name in ("a", "a.gif", "a.txt"):
        with pytest.raises(UserError, match=r"end the file name in one of \.bmp"):
            check_output(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_to_tensor_takes_everything_that_holds_an_image(tmp_path: Path, scene: Scene) -> None:
    x = scene()
    array = pixels(x)
    write_image(tmp_path / "a.png", x)
    expected = read_image(tmp_path / "a.png").pixels
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(array),
        Image.fromarray(with_alpha(array)),
        array,
        array.astype(np.uint16) * 257,
        array / 255,
        expected,
        expected.double(),
    ]
    for source in sources:
        tensor = to_tensor(source)
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, expected, atol=1e-6)
    assert to_tensor(array[..., 0]).shape == (1, 1, 40, 48)
    assert to_tensor(Image.fromarray(array).convert("L")).shape == (1, 1, 40, 48)
    assert to_tensor(Image.fromarray(array[..., 0].astype(np.uint16) * 257)).shape == (1, 1, 40, 48)
    assert to_tensor(torch.cat([expected, expected])).shape == (2, 3, 40, 48)
    assert to_tensor(expected + 0.3).max() > 1  # noise may leave the range


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.full((20, 20), np.nan), "not finite"),
        (torch.full((1, 1, 20, 20), torch.inf), "not finite"),
        (np.full((20, 20), 200.0), "out of range"),
        (np.full((20, 20), -1.0), "out of range"),
        (torch.full((1, 3, 20, 20), 255.0), "out of range"),
        (np.zeros((3, 20, 20)), r"shape \(H, W\)"),
        (np.zeros((20, 20, 4)), r"shape \(H, W\)"),
        (np.zeros((20, 20), np.int32), "not int32"),
        (torch.zeros(3, 20, 20), r"shape \(B, C, H, W\)"),
        (torch.zeros(1, 2, 20, 20), r"shape \(B, C, H, W\)"),
        (torch.zeros(1, 3, 20, 20, dtype=torch.uint8), "not torch.uint8"),
        (np.zeros((8, 20)), "at least 16 x 16"),
        (Image.new("F", (20, 20)), "mode F"),
        ([1, 2, 3], "not list"),
    ],
)
def test_to_tensor_refuses(image: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        to_tensor(image)


@pytest.mark.parametrize("size", [3, 16, 33, 300])
def test_kernel_files(tmp_path: Path, size: int) -> None:
    kernel = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    kernel = kernel / kernel.sum()
    array_path, picture_path = write_kernel(tmp_path / "x.y_kernel", kernel)
    assert (array_path.name, picture_path.name) == ("x.y_kernel.npy", "x.y_kernel.png")
    assert np.load(array_path).dtype == np.float32
    assert torch.allclose(read_kernel(array_path), kernel)
    with Image.open(picture_path) as picture:
        assert picture.width == picture.height == size * max(1, 256 // size)
        assert picture.getextrema() == (round(255 * float(kernel.min() / kernel.max())), 255)
    from_picture = read_kernel(picture_path)  # the enlargement is undone
    assert from_picture.shape == kernel.shape
    assert from_picture.sum().item() == pytest.approx(1, abs=1e-5)
    assert (from_picture / from_picture.max() - kernel / kernel.max()).abs().max() < 1 / 255


def test_kernel_from_a_picture_of_someone_else(tmp_path: Path) -> None:
    Image.fromarray(np.eye(17, dtype=np.uint8) * 200).convert("RGB").save(tmp_path / "k.png")
    assert torch.allclose(read_kernel(tmp_path / "k.png")[0, 0], torch.eye(17) / 17)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.ones((5, 7)), "must be square"),
        (np.ones(25), "must be square"),
        (np.ones((2, 5, 5)), "must be square"),
        (np.ones((2, 2)), "smaller than 3 x 3"),
        (np.full((5, 5), np.nan), "not finite"),
        (-np.eye(5), "non-negative"),
        (np.zeros((5, 5)), "not zero everywhere"),
        (np.eye(5) * 1j, "not real numbers"),
    ],
)
def test_unusable_kernels(tmp_path: Path, array: np.ndarray, sentence: str) -> None:
    np.save(tmp_path / "k.npy", array)
    with pytest.raises(UserError, match=sentence):
        read_kernel(tmp_path / "k.npy")


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_unreadable_kernel_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "k.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="does not exist" if content is None else r"not a readable \.npy"):
        read_kernel(path)


def test_kernel_file_with_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"not a readable \.npy"):
        read_kernel(tmp_path / "k.npy")
