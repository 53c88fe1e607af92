"""Tables and plots of the measurements that pytest-benchmark has written.

    python -m benchmarks.report run.json [--out benchmarks/results] [--against earlier.json]

writes one folder per device: table.csv with a line for every row, table.md with the ratios, a plot of each
operation; with --against also comparison.md, the ratio of the earlier medians to the new ones.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

COLUMNS = (
    "operation",
    "backend",
    "shape",
    "dtype",
    "median_ms",
    "quartiles_ms",
    "rounds",
    "device",
    "python",
    "torch",
    "latentdem",
)
Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """The rows of one run."""
    rows = []
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        stats = benchmark["stats"]
        rows.append(
            benchmark["extra_info"]
            | {
                "median_ms": 1e3 * stats["median"],
                "quartiles_ms": 1e3 * stats["iqr"],
                "rounds": stats["rounds"],
            }
        )
    return rows


def slug(text: str) -> str:
    """`text` as the name of a file or folder."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def case(row: Row) -> tuple[str, str, str]:
    """The values that rows must share to be compared."""
    return row["operation"], row["shape"], row["dtype"]


def table(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ("---",) * len(header), *lines]) + "\n"


def write_csv(rows: list[Row], path: Path) -> None:
    """One line for every row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{row[k]:.4f}" if isinstance(row[k], float) else row[k] for k in COLUMNS})


def write_markdown(rows: list[Row], path: Path) -> None:
    """Medians, and how many times as fast as the reference and as the slowest row of the case each one is."""
    cases: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        cases[case(row)].append(row)
    lines = []
    for (operation, shape, dtype), members in cases.items():
        medians = {row["backend"]: row["median_ms"] for row in members}
        baseline = max(medians.values())
        for row in members:
            median = row["median_ms"]
            to_reference = f"{medians['reference'] / median:.2f}" if "reference" in medians else "-"
            lines.append(
                (
                    operation,
                    shape,
                    dtype,
                    row["backend"],
                    f"{median:.3f}",
                    f"{row['quartiles_ms']:.3f}",
                    to_reference,
                    f"{baseline / median:.1f}",
                )
            )
    one = rows[0]
    head = f"{one['device']}, torch {one['torch']}, latentdem {one['latentdem']}. Medians in milliseconds.\n\n"
    header = ("operation", "shape", "dtype", "row", "median", "quartiles", "to reference", "to slowest")
    path.write_text(head + table(header, lines))


def write_plot(operation: str, rows: list[Row], path: Path) -> None:
    """Bars of the medians, logarithmic."""
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    labels = list(dict.fromkeys(f"{row['shape']}, {row['dtype']}" for row in rows))
    figure = Figure(figsize=(8, 1.2 + 0.25 * len(labels) * len(backends)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(backends)
    for i, backend in enumerate(backends):
        members = [row for row in rows if row["backend"] == backend]
        at = [labels.index(f"{row['shape']}, {row['dtype']}") + i * height for row in members]
        bars = axes.barh(at, [row["median_ms"] for row in members], height, label=backend)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(labels))], labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("median, ms")
    axes.set_title(operation, fontsize=9)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def write_comparison(rows: list[Row], earlier: list[Row], path: Path) -> None:
    """Earlier median over new median, of the rows that both runs have."""
    before = {(*case(row), row["backend"]): row["median_ms"] for row in earlier}
    lines = [
        (
            *case(row),
            row["backend"],
            f"{before[key]:.3f}",
            f"{row['median_ms']:.3f}",
            f"{before[key] / row['median_ms']:.2f}",
        )
        for row in rows
        if (key := (*case(row), row["backend"])) in before
    ]
    path.write_text(table(("operation", "shape", "dtype", "row", "earlier", "now", "ratio"), lines))


def main() -> None:
    """Read, sort by device, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    earlier = read(options.against) if options.against else []
    devices: dict[str, list[Row]] = defaultdict(list)
    for row in read(options.run):
        devices[row["device"]].append(row)
    for device, rows in devices.items():
        folder = options.out / slug(device)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(rows, folder / "table.csv")
        write_markdown(rows, folder / "table.md")
        for operation in dict.fromkeys(row["operation"] for row in rows):
            members = [row for row in rows if row["operation"] == operation]
            write_plot(operation, members, folder / f"{slug(operation)}.png")
        if earlier:
            same = [row for row in earlier if row["device"] == device]
            write_comparison(rows, same, folder / "comparison.md")
        print(folder)


if __name__ == "__main__":
    main()
