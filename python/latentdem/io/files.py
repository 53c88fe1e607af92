"""Atomic writing of files: no incomplete file is ever left behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import UserError
from .remote import address_of, uploaded


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`, with the same suffix, that becomes `path` when the block succeeds.

    Any exception, Ctrl-C included, removes the temporary file and leaves an existing file at `path` unchanged.
    Where `path` is an address (see `io.remote`), the temporary file is on this machine. A symbolic link stays
    one, and into a device or a pipe, such as /dev/stdout, the file is copied.

    Raises:
        UserError: the file system refuses to write there.
    """
    path = Path(path)
    if (address := address_of(path)) is not None:
        with uploaded(address) as temporary:
            yield temporary
        return
    target, device = Path(os.path.realpath(path)), is_device(path)
    folder = Path(tempfile.gettempdir()) if device else target.parent
    temporary = folder / f".latentdem-{uuid4().hex[:12]}{path.suffix}"
    try:
        yield temporary
        if device:
            path.write_bytes(temporary.read_bytes())
        else:
            os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {_reason(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder` whose files all move to `folder` when the block succeeds.

    Any exception, Ctrl-C included, leaves `folder` as it was.

    Raises:
        UserError: the file system refuses to write there.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".latentdem-", dir=folder) as name:
            stage = Path(name)
            yield stage
            for file in sorted(stage.iterdir()):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise UserError(f"Cannot write in {folder.resolve()}: {_reason(error)}.") from error


def is_device(path: Path) -> bool:
    """Whether `path` is a device or a pipe, which is written into and never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_writable(path: str | Path) -> None:
    """Makes sure, before a long computation, that `path` can be written after it.

    Raises:
        UserError: `path` is a folder, or its folder does not exist or is not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"Cannot write {path}: it is a folder; give a file name.")
    if is_device(path):
        return
    if not path.parent.is_dir():
        raise UserError(f"Cannot write {path}: the folder {path.parent} does not exist; create it first.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return
    except OSError as error:
        raise UserError(
            f"Cannot write in {path.parent.resolve()}: {_reason(error)}; choose another place."
        ) from error


def make_folder(path: str | Path) -> None:
    """Creates the folder `path` and its parents where they do not exist.

    Raises:
        UserError: the file system refuses, or `path` is a file.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create the folder {path}: {_reason(error)}.") from error


def write_json(path: str | Path, data: Any) -> None:
    """Writes strict JSON (numbers that are not finite become null) in one piece.

    Raises:
        UserError: `path` cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(strict_json(data, indent=2) + "\n", encoding="utf-8")


def strict_json(data: Any, indent: int | None = None) -> str:
    """Strict JSON of plain data; numbers that are not finite become null."""
    return json.dumps(_strict(data), indent=indent, ensure_ascii=False, allow_nan=False)


def keep_settings(path: Path, settings: dict[str, Any], what: str, remedy: str) -> None:
    """Writes the settings that the contents of a folder depend on, or makes sure that they are unchanged.

    Args:
        path: JSON file in that folder.
        settings: plain data.
        what: contents of the folder, such as "an evaluation".
        remedy: end of the error message where the settings differ.

    Raises:
        UserError: the settings differ, or the file cannot be read or written.
    """
    settings = json.loads(json.dumps(_strict(settings)))
    if not path.exists():
        write_json(path, settings)
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not readable; {remedy}.") from error
    differing = [
        f"{name} {earlier.get(name)} instead of {settings.get(name)}"
        for name in sorted({*settings, *earlier})
        if earlier.get(name) != settings.get(name)
    ]
    if differing:
        raise UserError(f"{path.parent} holds {what} with other settings ({', '.join(differing)}); {remedy}.")


def _strict(value: Any) -> Any:
    """`value` in the types of JSON: numbers, strings, lists, dictionaries and null."""
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):  # tensors, arrays and NumPy scalars
        return _strict(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None  # inf - inf and nan - nan are nan
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
