"""A protocol over a folder: the evaluation of every method, and tables and plots that compare them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from ..io.files import atomic_path, make_folder, write_json
from ..metrics import lpips_available
from ..output.report import peak_memory, versions
from ..output.sheets import comparison_sheet
from .cases import EvaluationSettings, make_case
from .loop import Evaluation, finished, run_evaluation
from .method_names import earlier_methods
from .plots import plot_accuracy, plot_seconds
from .protocols import Entry, Protocol, differences
from .runner import ImageProgress
from .store import COLUMNS, write_table

_SHEET_IMAGES = 8
SHOWN = {
    "psnr_input": ("input", ".2f"),
    "psnr": ("PSNR", ".2f"),
    "psnr_aligned": ("aligned", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "lpips": ("LPIPS", ".3f"),
    "kernel_mse": ("kernel MSE", ".4f"),
    "mnc": ("MNC", ".3f"),
    "seconds": ("seconds", ".1f"),
    "memory_mb": ("MB", ".0f"),
}
_FAILURES_SHOWN = 3  # of each method, below the table


@dataclass(frozen=True)
class TableRow:
    """Results of one method."""

    entry: Entry
    evaluation: Evaluation


def run_protocol(
    folder: str | Path,
    out: str | Path,
    protocol: Protocol,
    entries: tuple[Entry, ...],
    settings: EvaluationSettings,
    *,
    limit: int | None,
    batch: int = 1,
    device: str = "auto",
    progress: ImageProgress | None = None,
) -> list[TableRow]:
    """Runs `entries` of a protocol, one after the other, on the same test cases.

    Each has its own folder in `out`, written by `run_evaluation`, so that the same call resumes after an
    interruption. `out` gets metrics.csv (a row per image and method), table.md, summary.json,
    contact_sheet.png, psnr_seconds.png and, where kernels were estimated, kernel_accuracy.png; these
    also cover the methods of the protocol that earlier calls have left in `out`.

    Args:
        folder: folder of sharp images.
        out: folder of the results, created where it does not exist.
        protocol: the table.
        entries: rows of the table to run.
        settings: settings of all methods; `non_blind` is set by the entries.
        limit: number of images.
        batch, device: as in `run_evaluation`.
        progress: called with the number of methods done, a fraction included, their total and the current
            method and image.

    Raises:
        UserError: as `run_evaluation`.
    """
    folder, out = Path(folder), Path(out)
    rows: list[TableRow] = []
    for number, entry in enumerate(entries):

        def count(done: float, total: int, name: str, number: int = number, entry: Entry = entry) -> None:
            if progress is not None:
                progress(number + done / max(total, 1), len(entries), f"{entry.name}: {name}")

        own = replace(settings, non_blind=entry.non_blind)
        evaluation = run_evaluation(
            folder,
            out / entry.name,
            own,
            method=entry.method,
            limit=limit,
            batch=batch,
            device=device,
            progress=count,
        )
        rows.append(TableRow(entry, evaluation))
    ran = {row.entry.name: row for row in rows}
    known = [entry.name for entry in protocol.entries]
    protocol = protocol.with_methods(earlier_methods(out, known))
    for entry in protocol.entries:
        own = replace(settings, non_blind=entry.non_blind)
        if entry.name in ran:
            continue
        earlier = finished(folder, out / entry.name, own, entry.method)
        if earlier is not None and earlier.rows:
            ran[entry.name] = TableRow(entry, earlier)
    everything = [ran[entry.name] for entry in protocol.entries if entry.name in ran]
    if any(row.evaluation.rows for row in everything):
        _write(out, folder, protocol, everything, settings)
    return everything


def _write(
    out: Path, folder: Path, protocol: Protocol, rows: list[TableRow], settings: EvaluationSettings
) -> None:
    make_folder(out)
    write_table(out / "metrics.csv", ("method", *COLUMNS, "failure"), _csv_cells(rows))
    images = max(len(row.evaluation.rows) for row in rows)
    differing = differences(settings, images, tuple(row.entry for row in rows)) if protocol.paper else []
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(table_text(protocol, rows, differing), encoding="utf-8")
    available, reason = lpips_available()
    summary: dict[str, Any] = {
        "protocol": protocol.title,
        "folder": str(folder),
        "versions": versions(),
        "differs from the paper": differing,
        "methods": {
            row.entry.name: {
                "method": str(row.entry.method),
                "images": len(row.evaluation.rows),
                "mean": row.evaluation.mean,
                "failures": row.evaluation.failures,
            }
            for row in rows
        },
        "lpips": "measured" if available else f"not measured: {reason}",
        "peak_memory": peak_memory(),
    }
    write_json(out / "summary.json", summary)
    _write_sheet(out / "contact_sheet.png", folder, rows, settings)
    timed = [(row.entry.title, [r for r in row.evaluation.rows if r.seconds is not None]) for row in rows]
    if timed := [(title, images) for title, images in timed if images]:
        plot_seconds(timed, out / "psnr_seconds.png")
    moments = {
        row.entry.title: [run for image in row.evaluation.rows if (run := row.evaluation.store.moments(image))]
        for row in rows
    }
    curves = {title: runs for title, runs in moments.items() if runs}
    if curves:
        plot_accuracy(curves, settings.noise_sigma, out / "kernel_accuracy.png")


def _csv_cells(rows: list[TableRow]) -> Iterator[tuple[str | int | float | None, ...]]:
    """A line per method and image; where a method failed, only the names and the reason."""
    for row in rows:
        for image in row.evaluation.rows:
            yield (row.entry.name, *astuple(image), None)
        for name, reason in row.evaluation.failures.items():
            yield (row.entry.name, None, name, *[None] * (len(COLUMNS) - 2), reason)


def table_text(protocol: Protocol, rows: list[TableRow], differing: list[str]) -> str:
    """The table in Markdown: means over the images, and below them the differences from the paper."""
    means = [row.evaluation.mean for row in rows]
    columns = {name: column for name, column in SHOWN.items() if any(mean[name] is not None for mean in means)}
    head = ["method", "images", *(title for title, _ in columns.values())]
    lines = [f"## {protocol.title}", "", line(head), line(["---"] * len(head))]
    for row, mean in zip(rows, means, strict=True):
        cells = [cell(mean[name], form) or "-" for name, (_, form) in columns.items()]
        lines.append(line([row.entry.title, count_of(row.evaluation.rows, row.evaluation.failures), *cells]))
    lines += [
        "",
        'PSNR in dB, "input" that of the blurred images, "aligned" after the best shift of quarter pixels.',
    ]
    lines += failure_lines({row.entry.title: row.evaluation.failures for row in rows})
    if differing:
        lines.append(f"Different from the paper: {'; '.join(differing)}.")
    return "\n".join(lines) + "\n"


def count_of(rows: Sequence[object], failures: Mapping[str, str]) -> str:
    """Number of images that a method has a result of, with that of all images where it failed on some."""
    return f"{len(rows)} of {len(rows) + len(failures)}" if failures else str(len(rows))


def failure_lines(failures: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Sentences on images that no method could use, and the first reasons why each method failed on others.

    Args:
        failures: by method, and then by image, the reasons.
    """
    everywhere = set.intersection(*(set(reasons.values()) for reasons in failures.values()))
    lines = [f"Skipped: {reason}" for reason in sorted(everywhere)] if len(failures) > 1 else []
    for title, reasons in failures.items():
        own = [reason for reason in reasons.values() if f"Skipped: {reason}" not in lines]
        lines += [f"Failed, {title}: {reason}" for reason in own[:_FAILURES_SHOWN]]
        if len(own) > _FAILURES_SHOWN:
            lines.append(f"Failed, {title}: {len(own) - _FAILURES_SHOWN} more.")
    return lines


def line(cells: list[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def cell(value: float | None, form: str) -> str:
    """A figure as text, nothing where it was not measured."""
    return "" if value is None else format(value, form)


def _write_sheet(path: Path, folder: Path, rows: list[TableRow], settings: EvaluationSettings) -> None:
    """Writes a contact sheet of the first images, each as restored by all methods that have it."""
    results = [{result.index: result for result in row.evaluation.rows} for row in rows]
    sheet = []
    shown = next(row for row in rows if row.evaluation.rows)
    for first in shown.evaluation.rows[:_SHEET_IMAGES]:
        case = make_case(folder / first.image, first.index, settings)
        pictures = [(f"input {first.psnr_input:.2f} dB", case.blurred, case.kernel)]
        for row, by_index in zip(rows, results, strict=True):
            if (result := by_index.get(first.index)) is not None:
                image, kernel = row.evaluation.store.load(result)
                pictures.append((f"{row.entry.name} {result.psnr_aligned:.2f}", image, kernel))
        sheet.append([*pictures, ("reference", case.reference, case.kernel)])
    comparison_sheet(sheet, path)
