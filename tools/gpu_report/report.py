"""Writes report.md, measurements.csv and environment.json."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .steps import Outcome

COLUMNS = (
    "operation",
    "shape",
    "dtype",
    "backend",
    "median_ms",
    "quartiles_ms",
    "rounds",
    "to_reference",
    "gb_per_s",
    "of_copy",
    "peak_mb",
    "error",
    "allowed",
)
NOTE = """\
Medians between CUDA events, the L2 cache overwritten before every run. GB/s counts the least that an operation
has to read and write, its arguments and its results once; of_copy is its share of the bandwidth of a plain copy
in the same run. Peak memory is allocated on top of the arguments. The error is the largest of any sample,
relative to float64 (to float32 for half precision), beside the largest allowed.
"""


def slug(text: str) -> str:
    """`text` as the name of a folder, as in `benchmarks.report`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write(folder: Path, environment: dict[str, Any], outcomes: Sequence[Outcome], measurements: Path) -> None:
    """Writes all results into `folder`; `measurements` is the file of measure.py and may be missing."""
    measured = (
        json.loads(measurements.read_text()) if measurements.exists() else {"rows": [], "copy_gb_per_s": None}
    )
    (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    with (folder / "measurements.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _shown(row[name]) for name in COLUMNS} for row in measured["rows"])
    (folder / "report.md").write_text("\n".join(_lines(environment, outcomes, measured)))


def _lines(environment: dict[str, Any], outcomes: Sequence[Outcome], measured: dict[str, Any]) -> list[str]:
    devices = environment["devices"]
    packages = environment["packages"]
    lines = [
        f"# {devices[0]['name']}",
        "",
        f"{len(devices)} device(s), compute capability {devices[0]['compute capability']}, "
        f"{devices[0]['memory_gb']} GB; CUDA {environment['cuda']}, PyTorch {packages['torch']}, "
        f"Triton {packages['triton']}, Python {environment['python']}; the rest is in environment.json.",
        "",
        *_table(
            ("step", "state", "seconds", ""),
            [(o.name, o.state, f"{o.seconds:.0f}", o.detail) for o in outcomes],
        ),
        "",
    ]
    failures = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failures:
        lines += [f"## {outcome.name} failed: {outcome.detail}", "", "```", *_tail(outcome.output), "```", ""]
    lines += ["## Measurements", ""]
    if not measured["rows"]:
        return [*lines, "There are none.", ""]
    rows = [tuple(_shown(row[name]) for name in COLUMNS) for row in measured["rows"]]
    return [*lines, NOTE, f"A copy: {measured['copy_gb_per_s']:.0f} GB/s.", "", *_table(COLUMNS, rows), ""]


def _tail(output: str, lines: int = 40) -> list[str]:
    return output.splitlines()[-lines:]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, ["---"] * len(header), *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
