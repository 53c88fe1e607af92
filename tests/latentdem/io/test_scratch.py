"""Tensors of very large photographs in temporary files: here of small ones, with a lower limit."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from skimage import data

import latentdem
from latentdem.io import scratch
from latentdem.search import layout


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Everything of more than 1,000 bytes lies in a file; the list gets their sizes."""
    sizes: list[int] = []
    mapped = scratch._mapped
    monkeypatch.setattr(scratch, "LARGEST", 1000)
    monkeypatch.setattr(scratch, "_mapped", lambda size: sizes.append(size) or mapped(size))
    return sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_a_tensor_in_a_file_is_like_any_other(small: list[int], dtype: torch.dtype) -> None:
    tensor = scratch.zeros((2, 30, 50), dtype)
    assert small == [3000 * dtype.itemsize]
    assert tensor.dtype == dtype
    assert tensor.shape == (2, 30, 50)
    assert not tensor.any()
    tensor[1] = 3
    copied = scratch.copy(tensor.transpose(1, 2))
    assert copied.is_contiguous()
    assert int(copied.sum()) == 4500
    assert len(small) == 2


def test_small_tensors_are_in_memory(small: list[int]) -> None:
    scratch.zeros((250,))
    scratch.zeros((10_000,), device="meta")
    assert not small


def test_a_restoration_in_files_has_the_same_bits(small: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = data.astronaut()[:200, :200].copy()
    image[:2] = 0  # a border, so that pixels are filled
    monkeypatch.setattr(layout, "WORKING_SIZE", 64)
    monkeypatch.setattr(layout, "TILE_SIZE", 144)

    def restored() -> np.ndarray:
        return latentdem.deblur(
            image, kernel=np.eye(3) / 3, noise_sigma=0.02, quality="fast", device="cpu"
        ).image

    in_files = restored()
    assert len(small) >= 3
    assert small[-1] == 200 * 200 * 3 * 4
    monkeypatch.setattr(scratch, "LARGEST", 2**40)
    assert np.array_equal(in_files, restored())


def test_without_room_for_a_file_the_tensor_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch, "LARGEST", 1000)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.warns(UserWarning, match=r"no room for 0.0 GB \(no space left on device\).*TMPDIR"):
        assert scratch.zeros((1000,)).shape == (1000,)
