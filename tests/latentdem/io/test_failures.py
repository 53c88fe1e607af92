"""Files that cannot be read or written: one sentence, and nothing left behind."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.files import atomic_path, check_writable, is_device
from latentdem.io.images import check_output, image_names, read_image, write_image

Scene = Callable[..., Tensor]


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
def test_unusable_files_are_refused(tmp_path: Path, kind: str, sentence: str) -> None:
    path = broken(kind, tmp_path)
    with pytest.raises(UserError, match=sentence) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # a warning, which is no reason to refuse
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="million pixels"):
        read_image(tmp_path / "a.png")


def test_no_read_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # chmod does not stop a test that runs as root
    with pytest.raises(UserError, match="permission denied"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene, error: BaseException
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"what was there")

    def half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else UserError):
        write_image(target, scene())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"what was there"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(tmp_path: Path, there: bool) -> None:
    target, link = tmp_path / "folder" / "target.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    if there:
        target.write_text("what was there")
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [file.name for file in target.parent.iterdir()] == ["target.txt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    with atomic_path(pipe) as temporary:
        temporary.write_text("new")
    assert os.read(reader, 100) == b"new"
    os.close(reader)
    assert is_device(pipe)
    assert list(tmp_path.iterdir()) == [pipe]


def test_temporary_files_of_a_killed_run_are_no_photographs(tmp_path: Path, scene: Scene) -> None:
    write_image(tmp_path / "a.png", scene())
    (tmp_path / "._a.png").write_bytes(b"what macOS adds")
    with atomic_path(tmp_path / "b.png") as temporary:
        temporary.write_bytes((tmp_path / "a.png").read_bytes())
        assert len(list(tmp_path.iterdir())) == 3
        assert image_names(tmp_path) == ["a.png"]
    assert image_names(tmp_path) == ["a.png", "b.png"]


def test_writing_refuses_infinite_values_and_unknown_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        write_image(tmp_path / "a.png", torch.full((1, 1, 20, 20), torch.nan))
    for name in ("a", "a.gif", "a.txt"):
        with pytest.raises(UserError, match=r"end the file name in one of \.apng, \.bmp"):
            check_output(tmp_path / name)
    assert not list(tmp_path.iterdir())
