from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from latentdem.errors import UserError
from latentdem.io.kernels import as_kernel, read_kernel, write_kernel
from latentdem.operators.kernels import gaussian_kernel, motion_kernels

from ..payloads import Payload, numpy_file, pickle_file


@pytest.mark.parametrize("size", [3, 16, 33, 300])
def test_kernels_are_written_and_read(tmp_path: Path, size: int) -> None:
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


def test_kernel_from_a_foreign_picture(tmp_path: Path) -> None:
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
        (-np.eye(5), "no positive value"),
        (np.zeros((5, 5)), "no positive value"),
        (np.eye(5) - 0.1, "subtract the background"),
        (np.eye(5) * 1j, "not real numbers"),
    ],
)
def test_unusable_kernels_are_refused(tmp_path: Path, array: np.ndarray, sentence: str) -> None:
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


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("write", [numpy_file, pickle_file])
def test_code_in_a_kernel_file_is_not_run(tmp_path: Path, write: Any, suffix: str) -> None:
    path, payload = tmp_path / f"k{suffix}", Payload(tmp_path / "ran")
    write(path, payload)
    with pytest.raises(UserError, match=rf"not a readable \{suffix}"):
        read_kernel(path)
    assert not payload.trace.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".txt", ".csv", ".tif"])
def test_measured_kernels_are_read(tmp_path: Path, suffix: str) -> None:
    kernel = gaussian_kernel(9, 1.5)
    measured = (1000 * kernel[0, 0]).numpy()
    measured[0, 0] = -0.01  # background noise
    path = tmp_path / f"k{suffix}"
    if suffix == ".npy":
        np.save(path, measured)
    elif suffix == ".npz":
        np.savez(path, psf=measured)
    elif suffix == ".tif":
        tifffile.imwrite(path, measured)
    else:
        np.savetxt(path, measured, delimiter="," if suffix == ".csv" else " ")
    read = read_kernel(path)
    assert read.min() == 0
    torch.testing.assert_close(read, kernel, atol=1e-3, rtol=0)


def test_archive_of_several_kernels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "k.npz", a=np.eye(5), b=np.eye(5))
    with pytest.raises(UserError, match="holds 2 arrays"):
        read_kernel(tmp_path / "k.npz")


@pytest.mark.parametrize("size", [15, 25, 64, 85, 100])
@pytest.mark.parametrize("how", ["saved again", "cropped", "jpeg"])
def test_enlarged_picture_from_an_editor_is_reduced(tmp_path: Path, size: int, how: str) -> None:
    kernel = motion_kernels(1, size, 0.5, seed=size)
    _, path = write_kernel(tmp_path / "k", kernel)
    with Image.open(path) as picture:
        copy = picture.copy()
    if how == "cropped":
        copy = copy.crop((1, 0, copy.width, copy.height - 1))
    copy.info.clear()
    again = tmp_path / ("k.jpg" if how == "jpeg" else "again.png")
    copy.save(again, quality=75)
    read = read_kernel(again)
    assert read.shape == kernel.shape
    assert (read - kernel).abs().sum() < (0.2 if how == "jpeg" else 0.02)


@pytest.mark.parametrize("enlarged", [True, False])
def test_picture_that_was_cropped_unevenly_is_centred_and_said_to_be(tmp_path: Path, enlarged: bool) -> None:
    kernel = motion_kernels(1, 33, 0.5, seed=3)
    array_path, path = write_kernel(tmp_path / "k", kernel)
    with Image.open(path) as picture:
        factor = picture.width // 33
        left = (8 if enlarged else 12) * factor
        copy = picture.crop((left, left, picture.width, picture.height))
    if not enlarged:
        copy = copy.resize((21, 21), Image.Resampling.NEAREST)
    copy.save(tmp_path / "cropped.png")
    with pytest.warns(UserWarning, match="off the centre of its picture"):
        read = read_kernel(tmp_path / "cropped.png")
    places = torch.arange(read.shape[-1]) - read.shape[-1] // 2
    for axis in (-1, -2):
        assert abs(float((read.sum(axis)[0, 0] * places).sum())) <= 1
    assert torch.equal(read_kernel(array_path), kernel)


def test_picture_that_is_not_square_is_filled_up_with_black(tmp_path: Path) -> None:
    levels = np.zeros((15, 15), np.uint8)
    levels[7, 3:12] = levels[5, 11] = 200
    whole = levels / levels.sum(dtype=np.float64)
    Image.fromarray(levels[5:10, 2:13]).save(tmp_path / "k.png")
    read = read_kernel(tmp_path / "k.png")
    assert read.shape == (1, 1, 11, 11)
    assert np.allclose(read[0, 0].numpy(), whole[2:13, 2:13], atol=1e-6)


def test_large_picture_without_blocks_is_taken_as_it_is_with_a_warning(tmp_path: Path) -> None:
    levels = (255 * gaussian_kernel(151, 20)[0, 0] / gaussian_kernel(151, 20).max()).numpy().astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "k.png")
    with pytest.warns(UserWarning, match="151 x 151 pixels"):
        assert read_kernel(tmp_path / "k.png").shape[-1] == 151


def test_kernel_drawn_in_black_on_white_is_refused(tmp_path: Path) -> None:
    drawn = np.full((17, 17), 255, np.uint8)
    drawn[8, 4:12] = 0
    Image.fromarray(drawn).save(tmp_path / "k.png")
    with pytest.raises(UserError, match="black on white; invert it"):
        read_kernel(tmp_path / "k.png")


def test_a_box_is_a_kernel(tmp_path: Path) -> None:
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save(tmp_path / "k.png")
    torch.testing.assert_close(read_kernel(tmp_path / "k.png"), torch.full((1, 1, 5, 5), 1 / 25))


def test_kernel_drawn_on_transparency(tmp_path: Path) -> None:
    drawn = np.full((9, 9, 2), 255, np.uint8)
    drawn[..., 1] = 0
    drawn[4, 2:7, 1] = 255
    Image.fromarray(drawn).save(tmp_path / "k.png")
    assert (read_kernel(tmp_path / "k.png") > 0).sum() == 5


def test_kernels_are_taken_in_every_form(tmp_path: Path) -> None:
    kernel = gaussian_kernel(5, 1)
    array = kernel[0, 0].numpy()
    np.save(tmp_path / "k.npy", array)
    forms = [tmp_path / "k.npy", str(tmp_path / "k.npy"), array, 3 * array, array[None], array[None, None]]
    for form in (*forms, kernel, kernel[0], kernel[0, 0], kernel.half()):
        torch.testing.assert_close(as_kernel(form), kernel, atol=1e-4, rtol=0)
    assert as_kernel(np.concatenate([array[None], array[None]])).shape == (2, 1, 5, 5)


@pytest.mark.parametrize(
    "wrong", [np.ones((3, 5)), np.ones(5), np.ones((1, 3, 5, 5)), np.ones((0, 5, 5)), [1, 2], 3]
)
def test_what_is_no_kernel_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match=r"^(The|A) kernel"):
        as_kernel(wrong)
