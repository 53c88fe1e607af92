"""A report as a folder of Parquet files: a row for each photograph, over all runs that continue each other."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..io.files import atomic_path, make_folder, strict_json

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1000  # of a file
SECONDS = 60.0  # between files, so that a run that is killed loses the rows of a minute


class ParquetReport:
    """The report in `folder`, to which rows are added.

    The columns are input, output, status ("restored", "unexplained", "failed" or "skipped"), reason (of a
    failure), height and width in pixels, noise_sigma and residual in units of [-1, 1], seconds, and report:
    everything else, as JSON. Rows are written a thousand at a time, or every minute.

    Args:
        folder: made where it does not exist.

    Raises:
        UserError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def add(self, entry: dict[str, Any]) -> None:
        """Adds the report of a photograph, which is plain data.

        Raises:
            UserError: the folder cannot be written to.
        """
        size, seconds = entry.get("size", {}), entry.get("seconds", {})
        row = {
            name: entry.get(name) for name in ("input", "output", "status", "reason", "noise_sigma", "residual")
        }
        row |= {"height": size.get("height"), "width": size.get("width"), "seconds": seconds.get("total")}
        rest = {name: value for name, value in entry.items() if name not in row or name == "seconds"}
        self._rows.append({**row, "report": strict_json(rest)})
        if len(self._rows) >= ROWS or time.monotonic() - self._written > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that are not written yet.

        Raises:
            UserError: the folder cannot be written to.
        """
        import pyarrow as pa

        self._written = time.monotonic()
        if self._rows:
            number = max((int(part.stem.rpartition("-")[2]) for part in self._parts()), default=-1) + 1
            self._write(self._folder / f"part-{number:06}.parquet", pa.Table.from_pylist(self._rows, _schema()))
            self._rows = []

    def forget(self, again: Collection[str], done: Collection[str]) -> set[str]:
        """Drops the rows of inputs that are restored again, and says which of those that are `done` have one.

        A row of `done` that tells of a failure is dropped as well.

        Raises:
            UserError: a file of the report is damaged, or of another kind.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        stale, finished = (pa.array(sorted(names), pa.string()) for names in (again, done))
        there: set[str] = set()
        for part in self._parts():
            try:
                table = pq.read_table(part, schema=_schema())
            except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise UserError(f"{part} is no report of this command; give another --parquet.") from error
            failed = pc.and_(pc.equal(table["status"], "failed"), pc.is_in(table["input"], finished))
            kept = table.filter(pc.invert(pc.or_(pc.is_in(table["input"], stale), failed)))
            there.update(kept["input"].to_pylist())
            if not len(kept):
                part.unlink()
            elif len(kept) < len(table):
                self._write(part, kept)
        return there.intersection(done)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob("part-*[0-9].parquet"))

    def _write(self, path: Path, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = dict.fromkeys(("input", "output", "status", "reason"), pa.string())
    numbers = dict.fromkeys(("noise_sigma", "residual", "seconds"), pa.float64())
    sizes = dict.fromkeys(("height", "width"), pa.int32())
    return pa.schema({**texts, **sizes, **numbers, "report": pa.string()})
