"""Addresses of fsspec instead of paths."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from latentdem import UserError
from latentdem.io.files import write_json
from latentdem.io.images import read_image, write_image
from latentdem.io.remote import address_of, existing, list_address

fsspec = pytest.importorskip("fsspec", reason="the extra ray is not installed")

Scene = Callable[..., Tensor]


@pytest.fixture
def store() -> Iterator[Any]:
    """The file system memory://, empty before and after."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("s3://bucket/a b/photo.jpg", "s3://bucket/a b/photo.jpg"),
        ("gs://bucket/photos/", "gs://bucket/photos"),
        ("file:///tmp/photo.jpg", "file:///tmp/photo.jpg"),
        ("photos/a.jpg", None),
        ("/tmp/s3:/a.jpg", None),
        ("C:/photos/a.jpg", None),
        ("a:b.jpg", None),
    ],
)
def test_addresses_survive_a_path(path: str, address: str | None) -> None:
    assert address_of(Path(path)) == address_of(path) == address


def test_pictures_and_json_are_written_and_read(store: Any, scene: Scene) -> None:
    write_image("memory://bucket/sharp/a.png", scene(20, 24))
    assert read_image("memory://bucket/sharp/a.png").pixels.shape == (1, 3, 20, 24)
    write_json(Path("memory://bucket/r.json"), {"a": 1})
    assert json.loads(store.cat_file("/bucket/r.json")) == {"a": 1}


def test_nothing_is_written_of_a_block_that_fails(store: Any, scene: Scene) -> None:
    with pytest.raises(UserError, match="not finite"):
        write_image("memory://bucket/a.png", scene(20, 24) * float("nan"))
    assert not store.store


def test_folders_patterns_and_files(store: Any) -> None:
    for name in ("a.png", "b.jpg", "notes.txt", "more/c.png"):
        store.pipe_file(f"/bucket/{name}", b"x")
    names = {path.name for path in list_address("memory://bucket")[0]}
    assert names == {"a.png", "b.jpg", "notes.txt"}
    assert list_address("memory://bucket/*.png") == ([Path("memory://bucket/a.png")], False)
    assert list_address("memory://bucket/b.jpg") == ([Path("memory://bucket/b.jpg")], False)
    with pytest.raises(UserError, match=r"There is nothing at memory://bucket/no\.png"):
        list_address("memory://bucket/no.png")


def test_which_exist(store: Any, tmp_path: Path) -> None:
    store.pipe_file("/bucket/a.png", b"x")
    (tmp_path / "c.png").touch()
    paths = [Path("memory://bucket/a.png"), Path("memory://bucket/b.png"), Path("memory://empty/a.png")]
    assert existing([*paths, tmp_path / "c.png", tmp_path / "d.png"]) == {paths[0], tmp_path / "c.png"}


def test_what_is_wrong_is_one_sentence(store: Any) -> None:
    with pytest.raises(UserError, match=r"^nosuch://bucket/a.png cannot be read: Protocol not known: nosuch"):
        read_image("nosuch://bucket/a.png")
    with pytest.raises(UserError, match=r"^memory://bucket/a.png cannot be read: .*\.$"):
        read_image("memory://bucket/a.png")


def test_the_command_restores_from_address_to_address(
    cli: Any, here: Path, fake_deblur: Any, store: Any, scene: Scene
) -> None:
    for name in ("a", "b"):
        write_image(f"memory://bucket/photos/{name}.png", scene(20, 24))
    store.pipe_file("/bucket/photos/bad.png", b"x")
    arguments = ("deblur", "memory://bucket/photos", "-o", "memory://bucket/sharp")
    result = cli.run(*arguments, status=4)
    assert "memory://bucket/photos/bad.png is not an image" in result.stderr
    assert store.glob("/bucket/sharp/*") == ["/bucket/sharp/a_deblurred.png", "/bucket/sharp/b_deblurred.png"]
    assert "2 of the 3 results exist already" in cli.sentence(*arguments)
    store.rm_file("/bucket/sharp/b_deblurred.png")
    fake_deblur.calls.clear()
    cli.run(*arguments, "--skip-existing", status=4)
    assert len(fake_deblur.calls) == 1
    assert not list(here.iterdir())
    assert "Give the folder of the results" in cli.sentence(*arguments[:2])


def test_one_photograph_at_an_address_is_not_replaced(
    cli: Any, here: Path, fake_deblur: Any, store: Any, scene: Scene
) -> None:
    write_image("memory://bucket/a.png", scene(20, 24))
    arguments = ("deblur", "memory://bucket/a.png", "-o", "memory://bucket/sharp/")
    cli.run(*arguments)
    assert "exists already; add --overwrite" in cli.sentence(*arguments)
    cli.run(*arguments, "--overwrite")
    assert len(fake_deblur.calls) == 2
