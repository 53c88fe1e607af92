from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdem.errors import UserError
from latentdem.io.images import read_kernel, write_kernel


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
        (-np.eye(5), "non-negative"),
        (np.zeros((5, 5)), "not zero everywhere"),
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


def test_kernel_file_with_objects_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"not a readable \.npy"):
        read_kernel(tmp_path / "k.npy")
