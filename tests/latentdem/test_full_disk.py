"""A disk that is full in the middle of a file: one sentence, nothing left behind, and what was there stays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from latentdem.errors import UserError
from latentdem.io.files import write_json
from latentdem.io.images import write_image
from latentdem.io.kernels import write_kernel
from latentdem.solver.checkpoint import load_tensors, save_tensors

LIMIT = 20_000
LARGE = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
KERNEL = LARGE[:, :1, :101, :101] + 1

Write = Callable[[Path], object]
WRITERS: dict[str, Write] = {
    **{f"a.{suffix}": lambda path: write_image(path, LARGE) for suffix in ("png", "tif", "jpg", "webp", "bmp")},
    "a.npy": lambda path: write_kernel(path.with_suffix(""), KERNEL),
    "a.json": lambda path: write_json(path, LARGE[0, 0, :40]),
    "a.safetensors": lambda path: save_tensors(path, {"a": LARGE}, {"step": "1"}),
}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within the block, the operating system refuses to write more than `size` bytes to a file."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of the size of a file")
@pytest.mark.parametrize("name", list(WRITERS))
def test_no_room_for_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before[name]) > LIMIT
    with room_for(LIMIT), pytest.raises(UserError, match=r"^Cannot write .*: .*\.$") as caught:
        WRITERS[name](path)
    assert "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_checkpoint_before_stays_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"a": LARGE}, {"step": "1"})

    def half(file: Path, data: bytes) -> None:
        with file.open("wb") as opened:
            opened.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match="no space left on device"):
        save_tensors(path, {"a": -LARGE}, {"step": "2"})
    tensors, notes = load_tensors(path)
    assert torch.equal(tensors["a"], LARGE)
    assert notes == {"step": "1"}
