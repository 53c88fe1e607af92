"""Images in every form, and results in the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.images import read_image, write_image
from latentdem.io.inputs import open_image, to_tensor

Scene = Callable[..., Tensor]


def pixels(x: Tensor) -> np.ndarray:
    """(H, W, C) uint8 of a picture."""
    return ((x[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)


def with_alpha(array: np.ndarray) -> np.ndarray:
    return np.dstack([array, np.arange(array[..., 0].size).reshape(array.shape[:2]) % 256]).astype(np.uint8)


def test_every_kind_of_image_is_taken(tmp_path: Path, scene: Scene) -> None:
    x = scene()
    array = pixels(x)
    write_image(tmp_path / "a.png", x)
    expected = read_image(tmp_path / "a.png").pixels
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        Image.fromarray(array),
        Image.fromarray(with_alpha(array)),
        array,
        with_alpha(array),
        array.astype(np.uint16) * 257,
        array.astype(np.uint32) * 0x1010101,
        array.astype(np.uint64) * 0x101010101010101,
        array / 255,
        (array / 255).astype(np.float16),
        array[:, ::-1][:, ::-1],
        expected,
        expected.double(),
        expected[0],
        torch.from_numpy(array).permute(2, 0, 1),
    ]
    for source in sources:
        tensor = to_tensor(source)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert torch.allclose(
            tensor, expected, atol=1e-3 if getattr(source, "dtype", 0) == np.float16 else 1e-6
        )
    assert to_tensor([array, array]).shape == to_tensor(torch.cat([expected, expected])).shape == (2, 3, 40, 48)
    assert to_tensor(expected + 0.3).max() > 1  # noise may leave the range


@pytest.mark.parametrize("shape", [(40, 48), (40, 48, 1), (40, 48, 2), (40, 48, 3), (40, 48, 4)])
@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64", "bool"]
)
def test_arrays_come_back_as_they_were(shape: tuple[int, ...], dtype: str) -> None:
    generator = np.random.default_rng(0)
    array = generator.random(shape)
    kind = np.dtype(dtype)
    array = (
        array * np.iinfo(kind).max if kind.kind in "iu" else array.round() if kind.kind == "b" else array
    ).astype(kind)
    source = open_image(array)
    assert source.pixels.shape == (1, 3 if array.ndim == 3 and shape[-1] > 2 else 1, 40, 48)
    back = source.back(source.pixels)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    top = np.iinfo(kind).max if kind.kind in "iu" else 1
    np.testing.assert_allclose(back.astype(float) / top, array.astype(float) / top, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 48), (3, 40, 48), (4, 40, 48), (2, 3, 40, 48), (1, 1, 40, 48)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
def test_tensors_come_back_as_they_were(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.rand(shape)
    tensor = (255 * tensor).to(dtype) if dtype == torch.uint8 else (2 * tensor - 1).to(dtype)
    source = open_image(tensor)
    back = source.back(source.pixels)
    assert (back.shape, back.dtype, back.device) == (tensor.shape, tensor.dtype, tensor.device)
    torch.testing.assert_close(back, tensor, atol=1e-6, rtol=0)


def test_files_and_pictures_come_back_as_pictures(tmp_path: Path, scene: Scene) -> None:
    for array in (pixels(scene()), with_alpha(pixels(scene())), pixels(scene(channels=1))[..., 0]):
        picture = Image.fromarray(array)
        picture.save(tmp_path / "a.png")
        for given in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), picture):
            source = open_image(given)
            back = source.back(source.pixels)
            assert back.mode == picture.mode
            np.testing.assert_array_equal(np.asarray(back), array)


def test_deep_grey_picture_keeps_its_depth(scene: Scene) -> None:
    array = pixels(scene(channels=1))[..., 0].astype(np.uint16) * 257
    source = open_image(Image.fromarray(array))
    assert source.back(source.pixels).mode == "I;16"
    np.testing.assert_array_equal(np.asarray(source.back(source.pixels)), array)
    wide = Image.fromarray(array.astype(np.int32))  # mode I, in which PIL also opens 16-bit files
    assert torch.equal(to_tensor(wide), source.pixels)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_pictures_are_taken(scene: Scene, mode: str) -> None:
    array = with_alpha(pixels(scene(channels=1 if mode == "La" else 3)))
    array[..., -1] = 255
    picture = Image.fromarray(array).convert(mode)
    np.testing.assert_allclose(to_tensor(picture), to_tensor(array), atol=1e-6)


def test_picture_is_turned_like_its_file(tmp_path: Path, scene: Scene) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels(scene())).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        assert torch.equal(to_tensor(picture), to_tensor(tmp_path / "a.png"))
        back = open_image(picture).back(to_tensor(picture))
    assert back.size == (40, 48)
    assert back.getexif().get(ExifTags.Base.Orientation, 1) == 1


def test_a_list_comes_back_as_a_list(scene: Scene) -> None:
    array = pixels(scene())
    source = open_image([array, Image.fromarray(with_alpha(array))])
    back = source.back(source.pixels)
    assert isinstance(back[0], np.ndarray)
    assert back[1].mode == "RGBA"
    assert source.opaque is not None
    assert source.opaque.shape == (2, 1, 40, 48)
    assert source.pick(slice(1, 2)).pixels.shape == (1, 3, 40, 48)
    assert source.file(1).alpha is not None


def test_value_range_of_arrays_and_tensors(scene: Scene) -> None:
    x = scene()
    unit = (x + 1) / 2
    for given, value_range in (
        (unit, (0, 1)),
        (255 * unit, (0, 255)),
        (x, (-1, 1)),
        ((255 * unit[0].permute(1, 2, 0).numpy()), (0, 255)),
        (unit[0].permute(1, 2, 0).numpy() * 50 - 20, (-20, 30)),
    ):
        source = open_image(given, value_range)
        torch.testing.assert_close(source.pixels, x, atol=1e-5, rtol=0)
        np.testing.assert_allclose(source.back(x), given, atol=1e-4)
    whole = (255 * unit).round().long()
    torch.testing.assert_close(to_tensor(whole, (0, 255)), x, atol=0.01, rtol=0)


def test_a_tensor_that_looks_like_zero_to_one_gives_a_warning(scene: Scene) -> None:
    unit = (scene() + 1) / 2
    with pytest.warns(UserWarning, match=r"say value_range=\(0, 1\)"):
        to_tensor(unit)
    with pytest.warns(UserWarning, match="black"):
        to_tensor(unit + 0.001 * torch.randn(unit.shape))


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.full((20, 20), np.nan), "not finite"),
        (torch.full((1, 1, 20, 20), torch.inf), "not finite"),
        (np.full((20, 20), 200.0), r"such as value_range=\(0, 255\)"),
        (np.full((20, 20), -1.0), "out of range"),
        (torch.full((1, 3, 20, 20), 255.0), "out of range"),
        (np.full((20, 20), 255, np.int64), r"such as value_range=\(0, 255\)"),
        (torch.full((1, 3, 20, 20), 255), r"such as value_range=\(0, 255\)"),
        (np.zeros((3, 20, 20)), r"shape \(H, W\)"),
        (np.zeros((20, 20, 5)), r"shape \(H, W\)"),
        (np.zeros((20, 20), np.complex64), "not complex64"),
        (np.zeros((20, 20), "U3"), "real numbers"),
        (torch.zeros(20), r"shape \(H, W\)"),
        (torch.zeros(0, 3, 20, 20), r"shape \(H, W\)"),
        (torch.zeros(1, 5, 20, 20), r"shape \(H, W\)"),
        (torch.zeros(20, 20, dtype=torch.complex64), "real numbers"),
        (np.zeros((8, 20)), "at least 16 x 16"),
        (Image.new("RGB", (8, 20)), "8 x 20 pixels"),
        (Image.new("F", (20, 20)), "mode F"),
        (b"", "is empty"),
        (b"text", "not an image"),
        ([1, 2, 3], "not int"),
        ([], "is empty"),
        (3, "not int"),
        ([np.zeros((20, 20)), np.zeros((20, 22))], "of one size and kind"),
        ([torch.zeros(2, 1, 20, 20)], "one batch"),
    ],
)
def test_what_is_no_image_is_refused(image: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        to_tensor(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0, float("inf"))])
def test_value_range_that_is_none(value_range: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="value range is"):
        to_tensor(np.zeros((20, 20)), value_range)


def test_files_have_a_range_of_their_own(tmp_path: Path, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())
    with pytest.raises(UserError, match="for arrays and tensors"):
        to_tensor(tmp_path / "a.png", (0, 1))
