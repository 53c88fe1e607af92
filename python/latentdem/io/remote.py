"""Files at addresses such as s3://bucket/photo.jpg, through fsspec.

A `Path` carries an address as it does the name of a file, though with one slash after the colon, which
`address_of` puts right. Object stores show a file once all of it is there, as `io.files.atomic_path` does.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError

T = TypeVar("T")


def address_of(path: str | Path) -> str | None:
    """The address that `path` carries, such as "s3://bucket/photo.jpg"; None for a path on this machine."""
    match = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+)", Path(path).as_posix())  # one letter is a drive
    if match is None:
        return None
    scheme, rest = match.groups()
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"


def read_address(address: str) -> bytes:
    """The contents of the file at `address`.

    Raises:
        UserError: it cannot be read.
    """
    return _tried(address, "read", lambda system, place: system.cat_file(place))


def list_address(address: str) -> tuple[list[Path], bool]:
    """The files at `address`: those of a folder (not of its subfolders) or of a pattern, sorted, or the file.

    Returns:
        The files, and whether `address` is a folder.

    Raises:
        UserError: it cannot be read, or there is nothing.
    """

    def found(system: Any, place: str) -> tuple[list[str], bool]:
        if any(character in place for character in "*?["):
            return system.glob(place), False
        if system.isdir(place):
            return [item["name"] for item in system.ls(place, detail=True) if item["type"] == "file"], True
        return [place] if system.exists(place) else [], False

    names, folder = _tried(address, "read", found)
    if not names:
        raise UserError(f"There is nothing at {address}; check the address.")
    unstripped = _tried(address, "read", lambda system, _: [system.unstrip_protocol(name) for name in names])
    return sorted(map(Path, unstripped)), folder


def existing(paths: Sequence[Path]) -> set[Path]:
    """Those of the paths where there is a file; each folder at an address is listed once.

    Raises:
        UserError: a folder cannot be listed.
    """
    listed: dict[Path, set[str]] = {}
    there = set()
    for path in paths:
        address = address_of(path)
        if address is not None and path.parent not in listed:
            listed[path.parent] = _names(address.rpartition("/")[0])
        if path.exists() if address is None else path.name in listed[path.parent]:
            there.add(path)
    return there


@contextmanager
def uploaded(address: str) -> Iterator[Path]:
    """A temporary file, with the same suffix, that goes to `address` when the block succeeds.

    Raises:
        UserError: it cannot be written there.
    """
    with tempfile.TemporaryDirectory(prefix="latentdem-") as folder:
        path = Path(folder) / Path(address).name
        yield path

        def put(system: Any, place: str) -> None:
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), place)

        _tried(address, "written", put)


def _names(folder: str) -> set[str]:
    def names(system: Any, place: str) -> set[str]:
        system.invalidate_cache(place)
        return {Path(name).name for name in system.ls(place, detail=False)} if system.exists(place) else set()

    return _tried(folder, "read", names)


def _tried(address: str, what: str, action: Callable[[Any, str], T]) -> T:
    """What `action` gives for the file system of `address` and the place in it."""
    import fsspec

    try:
        return action(*fsspec.core.url_to_fs(address))
    except Exception as error:  # every file system has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{address} cannot be {what}: {reason.rstrip('.')}.") from error
