"""How programs hand over what they measure: JSON objects, a line for each, in a file that grows."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cases import Case


def for_each(
    cases: Iterable[Case], measure: Callable[[Case], Sequence[dict[str, Any]]], kind: str, out: Path
) -> int:
    """Writes the rows of every case at once, even after one that failed, and the exit status of the program.

    A row with `passed` false is a failure too.
    """
    count = failures = 0
    for each in cases:
        try:
            rows = measure(each)
        except Exception as error:
            failures += 1
            print(f"{each.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        for row in rows:
            count += 1
            failures += not row.get("passed", True)
            write_row(out, {"kind": kind} | each.name | row)
    print(f"{count} rows, {failures} failed", flush=True)
    return 1 if failures else 0


def write_all(measures: Iterable[Callable[[], Sequence[dict[str, Any]]]], out: Path) -> int:
    """Writes the rows of every function at once, even after one that failed, and the exit status."""
    count = failures = 0
    for measure in measures:
        try:
            rows = measure()
        except Exception:
            failures += 1
            traceback.print_exc()
            continue
        for row in rows:
            count += 1
            write_row(out, row)
    print(f"{count} rows, {failures} failed", flush=True)
    return 1 if failures else 0


def write_row(out: Path, row: dict[str, Any]) -> None:
    """Appends a row to a file of JSON lines, on disk when this returns."""
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")
