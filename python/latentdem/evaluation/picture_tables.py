"""What an evaluation on real pictures leaves beside its table: table.md, summary.json and contact sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..io.files import atomic_path, write_json
from ..output.report import peak_memory, versions
from ..output.sheets import SheetRow, contact_sheet
from .datasets import Benchmark
from .picture_rows import PictureRow, PictureSummary
from .store import EvaluationStore
from .tables import cell, line

Shown = tuple[Tensor, Tensor | None, Tensor | None]
COLUMNS = {
    "psnr_input": ("input", ".2f"),
    "psnr": ("PSNR", ".2f"),
    "gain": ("gain", "+.2f"),
    "ssim_input": ("SSIM input", ".3f"),
    "ssim": ("SSIM", ".3f"),
    "mnc": ("MNC", ".3f"),
    "mnc_rotated": ("MNC turned", ".3f"),
    "noise_sigma": ("noise", ".4f"),
    "residual": ("residual", ".4f"),
    "seconds": ("seconds", ".1f"),
    "cpu_seconds": ("CPU-s", ".1f"),
    "memory_mb": ("MB", ".0f"),
}
_EXPLAINED = {True: "yes", False: "no", None: "-"}
_ROWS_PER_SHEET, _PHOTOGRAPHS_PER_SHEET = 16, 6
_PHOTOGRAPH_CELL = 4.0  # inches, so that they can be looked at


def write_outputs(
    store: EvaluationStore[PictureRow],
    rows: Sequence[PictureRow],
    failures: dict[str, str],
    benchmark: Benchmark | None,
    identity: dict[str, Any],
    show: Callable[[PictureRow], Shown],
) -> None:
    """Writes table.md, summary.json and the contact sheets of at least one row.

    Args:
        store: of the evaluation.
        rows: those to write about.
        failures: reasons by name.
        benchmark: None for photographs.
        identity: the settings.
        show: input, true image and true kernel of a row.

    Raises:
        UserError: a file cannot be written.
    """
    summary = PictureSummary.of(rows)
    with atomic_path(store.folder / "table.md") as temporary:
        text = table_text(rows, summary, benchmark, failures, bool(identity["non_blind"]))
        temporary.write_text(text, encoding="utf-8")
    data = {
        "settings": identity,
        "versions": versions(),
        **summary.as_dict(),
        "failures": failures,
        "published": [vars(figure) for figure in benchmark.published] if benchmark else [],
        "peak_memory": peak_memory(),
    }
    write_json(store.folder / "summary.json", data)
    count = _ROWS_PER_SHEET if benchmark else _PHOTOGRAPHS_PER_SHEET
    for page, first in enumerate(range(0, len(rows), count)):
        name = f"contact_sheet_{page + 1}.png" if page else "contact_sheet.png"
        sheet = [_sheet_row(store, row, show(row)) for row in rows[first : first + count]]
        path = store.folder / name
        contact_sheet(sheet, path) if benchmark else contact_sheet(sheet, path, _PHOTOGRAPH_CELL)


def table_text(
    rows: Sequence[PictureRow],
    summary: PictureSummary,
    benchmark: Benchmark | None,
    failures: dict[str, str],
    non_blind: bool,
) -> str:
    """The pictures, their means and the published figures as tables in Markdown."""
    shown = {name: column for name, column in COLUMNS.items() if name in summary.mean}
    lines = [f"## {benchmark.title if benchmark else 'Photographs'}", ""]
    lines += head_lines(["picture", *(title for title, _ in shown.values()), "explained"])
    for row in rows:
        cells = [cell(getattr(row, name), form) or "-" for name, (_, form) in shown.items()]
        lines.append(line([row.image, *cells, _EXPLAINED[row.explained]]))
    means = [cell(summary.mean[name], form) or "-" for name, (_, form) in shown.items()]
    explained = "-" if summary.explained is None else f"{summary.explained} of {summary.pictures}"
    lines.append(line(["mean", *means, explained]))
    lines += ["", *summary.sentences()]
    lines += [f"Skipped: {name}: {reason}" for name, reason in failures.items()]
    if benchmark:
        name = f"this run, {'true kernel' if non_blind else 'blind'}"
        lines += published_lines({name: summary}, benchmark)
    return "\n".join(lines) + "\n"


def published_lines(runs: Mapping[str, PictureSummary], benchmark: Benchmark) -> list[str]:
    """The means of runs, by name, between the published ones, best first."""
    entries = [(f.method, f.psnr, f.mnc, f.source) for f in benchmark.published]
    for name, summary in runs.items():
        title = f"**{name}, {summary.pictures} of {benchmark.pictures} pictures**"
        entries.append((title, summary.mean.get("psnr"), summary.mean.get("mnc"), "measured here"))
    entries.sort(key=lambda entry: -(entry[1] or 0))
    table = [
        line([name, cell(psnr, ".2f") or "-", cell(mnc, ".3f") or "-", source])
        for name, psnr, mnc, source in entries
    ]
    return [
        "",
        f"Published means over all {benchmark.pictures} pictures (PSNR in dB at the best shift):",
        "",
        *head_lines(["method", "PSNR", "MNC", "source"]),
        *table,
    ]


def head_lines(titles: list[str]) -> list[str]:
    """The first two lines of a table in Markdown."""
    return [line(titles), line(["---"] * len(titles))]


def _sheet_row(store: EvaluationStore[PictureRow], row: PictureRow, shown: Shown) -> SheetRow:
    blurred, reference, true_kernel = shown
    image, kernel = store.load(row)
    fit = {True: ", explained", False: ", not explained", None: ""}[row.explained]
    if row.psnr is None:
        told = "" if row.residual is None else f", residual {row.residual:.4f}, noise {row.noise_sigma:.4f}"
        captions = ("", f"{fit}{told}".removeprefix(", "))
    else:
        captions = (f"{row.psnr_input:.2f} dB", f"{row.psnr:.2f} dB ({row.gain:+.2f}){fit}")
    known = "no kernel" if row.kernel_size is None else f"kernel, {row.kernel_size} x {row.kernel_size}"
    return SheetRow(
        name=row.image,
        blurred=blurred,
        image=image,
        reference=reference,
        kernel=kernel,
        true_kernel=true_kernel,
        blurred_caption=captions[0],
        image_caption=captions[1],
        kernel_caption=known if row.mnc is None else f"MNC {row.mnc:.3f}",
    )
