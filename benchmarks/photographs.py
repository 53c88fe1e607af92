"""Whole blind restorations by `latentdem deblur`, as a user runs it, with native operations and without.

    python -m benchmarks.whole_run --prior embedded [--photograph FILE ...] [--out benchmarks/results]

Every row is a process of its own, so that its memory is its own too, and all rows of a photograph are of one
run. The first photograph is examples/blurred.png, whose sharp image is known.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .conftest import device_name
from .report import slug

EXAMPLES = Path(__file__).parents[1] / "examples"
ROWS: dict[str, dict[str, str]] = {"native": {}, "reference": {"LATENTDEM_BACKEND": "reference"}}
PHASES = ("kernel search", "restoration")


def main(photographs: Sequence[Path], out: Path, options: Sequence[str] = ()) -> None:
    """Measure every row, write csv and a figure, and print.

    Args:
        photographs: blurred ones besides the example.
        out: folder of the results.
        options: of `latentdem deblur`.
    """
    rows: list[dict[str, Any]] = []
    for photograph in [EXAMPLES / "blurred.png", *photographs]:
        reference = EXAMPLES / "sharp.png" if photograph.parent == EXAMPLES else None
        for name, environment in ROWS.items():
            row: dict[str, Any] = {"photograph": photograph.stem, "run": name}
            row |= measured(photograph, reference, environment, options)
            first = next((one for one in rows if one["photograph"] == photograph.stem), row)
            row["CPU-seconds / native"] = row["CPU-seconds"] / first["CPU-seconds"]
            rows.append(row)
            print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    folder = out / slug(device_name())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "photographs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows).savefig(folder / "photographs.png", dpi=120)


def measured(
    photograph: Path, reference: Path | None, environment: dict[str, str], options: Sequence[str]
) -> dict[str, Any]:
    """Time, memory and PSNR (dB, at the best shift; None without a reference) of one restoration."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "latentdem", "deblur", str(photograph.resolve())]
        command += ["-o", f"{folder}/restored.png"]
        command += ["--json", str(report), "--quiet", "--unexplained", "result", *options]
        command += ["--reference", str(reference.resolve())] if reference else []
        began = time.perf_counter()
        # In a folder of its own: the sources in the checkout may not be built, and would hide the package.
        process = subprocess.Popen(command, env=os.environ | environment, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: no kernel explains the photograph
            raise SystemExit(f"{' '.join(command)} failed")
        found = json.loads(report.read_text())
    seconds = {phase: float(found["seconds"].get(phase, 0)) for phase in PHASES}
    metrics = found["metrics"].get("result")
    return {
        "seconds": wall,
        "starting": wall - sum(seconds.values()),
        **seconds,
        "CPU-seconds": usage.ru_utime + usage.ru_stime,
        "MB": usage.ru_maxrss / 1024,
        "PSNR": metrics and metrics["psnr_aligned"],
        "kernel": found["kernel_size"],
    }


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Where the time goes: a bar for each row."""
    figure = Figure(figsize=(8, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names, left = [f"{row['photograph']}, {row['run']}" for row in rows], [0.0] * len(rows)
    for phase in ("starting", *PHASES):
        widths = [row[phase] for row in rows]
        axes.barh(names, widths, left=left, label=phase)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend()
    return figure
