"""Writes report.md and environment.json from the outcomes and the rows so far."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .steps import Outcome

Row = dict[str, Any]
SAME = 1.05  # times that differ by less are equal
COLUMNS = {
    "ceiling": ("of", "gb_per_s", "tflops"),
    "comparison": ("operation", "shape", "dtype", "backend", "error", "allowed"),
    "time": (
        *("operation", "shape", "dtype", "backend", "chosen", "device_us", "quartiles_us", "host_us"),
        *("gb_per_s", "of_copy", "error", "allowed"),
    ),
    "counters": ("kernel", "grid", "us", "read", "written", "memory_%", "compute_%", "warps_%", "registers"),
    "whole run": ("what", "graph", "batch", "steps", "s", "gb", "steps_of_a_run", "s_per_image"),
    "blind": ("photograph", "graph", "s", "psnr"),
    "wait": ("place", "per_step"),
    "profile": ("function", "graph", "calls", "us", "share"),
}
TITLES = {
    "ceiling": "Ceilings: what the device reaches in a copy and in a matrix product.",
    "comparison": "Comparisons that failed: the largest error of a sample relative to float64, and its limit.",
    "time": """\
Times of an operation. `device_us`: median of replays of a CUDA graph in which it runs on several inputs, so
that nothing waits for the host and, where they are large, nothing comes from the cache; `quartiles_us` is the
distance of the quartiles. `host_us`: what the host needs to start it. GB/s counts arguments and results once;
`of_copy` is its share of a plain copy in the same run. `chosen` is the backend that the operation chooses for
itself. `folded` and `conv_transpose2d` are one transposed convolution with the folded kernel: as the package
calls it, and with cuDNN's search for its fastest algorithm. `separate operations` are the launches of an
M-step one after another, which `cuda` makes in one.""",
    "counters": "Counters of Nsight Compute, for the launches of three operations.",
    "whole run": """\
Networks of the shape of Stable Diffusion 1.5: whole runs with CUDA graphs and without, then some steps of
public programs. `s_per_image` is the time of all steps of a run by the images of the batch; `gb` is the most
memory that tensors took.""",
    "blind": "Photographs restored blind with the embedded prior, all estimated; PSNR in dB at the best shift.",
    "wait": "Lines of Python at which the host waits for the device, times a step.",
    "profile": """\
Where the device's time of ten steps goes, and its share of the clock's; first, all launches. With CUDA graphs,
of which the host launches one a step, the first two steps are still launches of single kernels.""",
}


def slug(text: str) -> str:
    """`text` as the name of a folder, as in `benchmarks.report`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write(
    folder: Path, name: str, environment: dict[str, Any], outcomes: Sequence[Outcome], results: Path
) -> None:
    """Writes the report of everything so far into `folder`; `results` holds a row a line."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    (folder / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    new = folder / "report.md.new"
    new.write_text("\n".join(_lines(name, environment, outcomes, rows)))
    new.replace(folder / "report.md")


def lost(times: Iterable[Row]) -> list[str]:
    """A line for every case in which the chosen backend takes more of the device's time than another one."""
    cases: dict[tuple[str, ...], list[Row]] = {}
    for row in times:
        cases.setdefault((row["operation"], row["shape"], row["dtype"]), []).append(row)
    sentences = []
    for case, rows in cases.items():
        best = min(rows, key=lambda row: row["device_us"])
        for row in rows:
            if row["chosen"] and row["device_us"] > SAME * best["device_us"]:
                sentences.append(
                    f"- {', '.join(case)}: {row['backend']} takes {_shown(row['device_us'])} us, "
                    f"{best['backend']} {_shown(best['device_us'])} us"
                )
    return sentences


def _lines(name: str, environment: dict[str, Any], outcomes: Sequence[Outcome], rows: list[Row]) -> list[str]:
    packages, cuda = environment["packages"], environment["cuda"]
    devices = "; ".join(
        f"compute capability {d['compute capability']}, {d['memory_gb']} GB" for d in environment["devices"]
    )
    lines = [
        f"# {name}",
        "",
        f"Commit {environment['commit']}; {devices or 'no device'}; CUDA {cuda}, PyTorch {packages['torch']}, "
        f"Triton {packages['triton']}, Python {environment['python']}; the rest is in environment.json, "
        "every row in results.jsonl, the output of the steps in log.txt.",
        "",
    ]
    states = [(o.name, o.state, f"{o.seconds:.0f}", o.detail) for o in outcomes]
    lines += _table(("step", "state", "seconds", ""), states)
    for outcome in outcomes:
        if outcome.failed:
            lines += ["", f"## {outcome.name} failed: {outcome.detail}", "", "```"]
            lines += [*outcome.output.splitlines()[-40:], "```"]
    times = [row for row in rows if row["kind"] == "time"]
    copy = next((row["gb_per_s"] for row in rows if "gb_per_s" in row and row["kind"] == "ceiling"), None)
    for row in times:
        row["of_copy"] = row["gb_per_s"] / copy if copy else None
    slower = lost(times)
    if slower:
        lines += ["", "## Dispatch that loses", "", *slower]
    for kind, columns in COLUMNS.items():
        shown = [row for row in rows if row["kind"] == kind and (kind != "comparison" or not row["passed"])]
        if shown:
            cells = [tuple(_shown(row.get(column)) for column in columns) for row in shown]
            lines += ["", f"## {kind.capitalize()}", "", TITLES[kind], "", *_table(columns, cells)]
    return [*lines, ""]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, ["---"] * len(header), *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
