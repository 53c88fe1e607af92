"""The table of an evaluation on disk, metrics.csv and settings.json, from which it resumes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import UserError
from ..io.files import atomic_path, keep_settings, make_folder

Row = TypeVar("Row")
_PARSERS: dict[Any, Callable[[str], Any]] = {"int": int, "str": str}


class RowStore(Generic[Row]):
    """Output folder of one evaluation, with a row per result.

    Args:
        folder: created where it does not exist.
        settings: everything that determines the figures; a folder made with other settings is refused.
        row_type: dataclass with fields annotated as int, str, float or float | None.

    Attributes:
        rows: all rows so far.

    Raises:
        UserError: other settings, unreadable files of an earlier run, or a folder that cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], row_type: type[Row]) -> None:
        self.folder, self._row_type = folder, row_type
        self._table = folder / "metrics.csv"
        make_folder(folder)
        what_helps = "choose another folder with -o, or delete this one"
        keep_settings(folder / "settings.json", settings, "an evaluation", what_helps)
        self.rows = self._read() if self._table.exists() else []

    def _read(self) -> list[Row]:
        try:
            with self._table.open(newline="", encoding="utf-8") as file:
                return [self._parse(record) for record in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._table} is not a table of this program; delete it.") from error

    def _parse(self, record: dict[str, str]) -> Row:
        parsers = {field.name: _PARSERS.get(field.type, _figure) for field in fields(self._row_type)}  # type: ignore[arg-type]
        return self._row_type(**{name: parse(record[name]) for name, parse in parsers.items()})

    def put(self, row: Row, key: Callable[[Row], Any], order: Callable[[Row], Any]) -> None:
        """Writes the table with `row` in the place of one with the same `key`, sorted by `order`."""
        self.rows = sorted([*(r for r in self.rows if key(r) != key(row)), row], key=order)
        columns = [field.name for field in fields(self._row_type)]  # type: ignore[arg-type]
        write_table(self._table, columns, (astuple(r) for r in self.rows))  # type: ignore[call-overload]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[int | str | float | None]]) -> None:
    """Writes a CSV file in one piece.

    Raises:
        UserError: `path` cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: int | str | float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _figure(text: str) -> float | None:
    return float(text) if text else None
