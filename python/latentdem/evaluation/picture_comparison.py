"""Several methods on the same pictures that a camera blurred: their evaluations and a table of their means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..io.files import atomic_path, make_folder, write_json
from ..output.report import versions
from .method_names import ALL, NamedMethod, check_names, earlier_methods
from .methods import KERNEL_PRIORS
from .on_pictures import OnPictures
from .picture_rows import PictureRow, PictureSummary
from .picture_tables import COLUMNS, head_lines, published_lines
from .pictures import (
    PictureEvaluation,
    PictureMethod,
    PictureSettings,
    deblur_picture,
    evaluate_pictures,
    identity_of,
)
from .rivals import RIVALS
from .runner import ImageProgress
from .store import EvaluationStore, write_table
from .tables import cell, count_of, failure_lines, line

OWN: dict[str, PictureMethod] = {
    "deblur": deblur_picture,
    **{name: OnPictures(method) for name, method in (KERNEL_PRIORS | RIVALS).items()},
}
"""Methods of this package by name."""
_BY_DEFAULT = ("deblur",)  # what `ALL` stands for
_SHOWN = ("psnr_input", "psnr", "gain", "ssim", "mnc", "mnc_rotated", "seconds", "cpu_seconds", "memory_mb")


@dataclass(frozen=True)
class ComparedMethod:
    """A row of the table: its name, what restores the pictures, and whether it is given the true kernels."""

    name: str
    method: PictureMethod
    non_blind: bool


def picture_methods(
    names: Sequence[str], others: Sequence[NamedMethod], *, non_blind: bool
) -> tuple[ComparedMethod, ...]:
    """The methods with these names, followed by those of other people.

    Raises:
        UserError: an unknown name, or two methods of the same name.
    """
    for name in names:
        if name not in (*OWN, ALL):
            known = ", ".join(OWN)
            raise UserError(
                f"There is no method '{name}' for real pictures; there are {known}, published:FOLDER and "
                "command:PROGRAM."
            )
    check_names([*OWN, *(other.name for other in others)])
    wanted = {*names, *(_BY_DEFAULT if ALL in names else ())}
    ours = [_own(name, non_blind) for name in OWN if name in wanted]
    return (*ours, *(ComparedMethod(other.name, other.method, other.non_blind) for other in others))


def _own(name: str, non_blind: bool) -> ComparedMethod:
    """A method of this package; only the first one may be given kernels."""
    return ComparedMethod(name, OWN[name], non_blind and name in _BY_DEFAULT)


def compare_pictures(
    folder: str | Path,
    out: str | Path,
    settings: PictureSettings,
    methods: Sequence[ComparedMethod],
    *,
    cases: Sequence[str] = (),
    limit: int | None = None,
    device: str = "auto",
    progress: ImageProgress | None = None,
) -> dict[str, PictureEvaluation]:
    """Evaluates methods on the same pictures, one after the other, each in a folder of its own in `out`.

    `out` gets metrics.csv (a row per method and picture), table.md and summary.json, which also cover the
    methods that earlier calls have left there.

    Args:
        folder, settings, cases, limit, device: as in `evaluate_pictures`; the methods say whether they are
            given the true kernels.
        out: folder of the results.
        methods: the rows.
        progress: called with the number of methods done, a fraction included, their total and the current
            method and picture.

    Returns:
        The evaluations by the names of the methods, earlier ones included.

    Raises:
        UserError: as `evaluate_pictures`, or `out` holds the evaluation of one method.
    """
    folder, out = Path(folder), Path(out)
    if (out / "settings.json").exists():
        raise UserError(f"{out} holds the evaluation of one method; choose another folder with -o.")
    done: dict[str, PictureEvaluation] = {}
    for number, each in enumerate(methods):
        done[each.name] = evaluate_pictures(
            folder,
            out / each.name,
            replace(settings, non_blind=each.non_blind),
            method=each.method,
            cases=cases,
            limit=limit,
            device=device,
            progress=progress and _share(progress, number, len(methods), each.name),
        )
    for earlier in _earlier(out, tuple(done), settings.non_blind):
        own = replace(settings, non_blind=earlier.non_blind)
        place = out / earlier.name
        store = EvaluationStore(place, identity_of(folder, own, earlier.method), PictureRow)
        done[earlier.name] = PictureEvaluation(store, list(store.rows), {})
    if any(evaluation.rows for evaluation in done.values()):
        _write(out, settings, done)
    return done


def _share(progress: ImageProgress, number: int, methods: int, name: str) -> ImageProgress:
    """Progress of one method as a part of that of all."""

    def report(done: float, total: int, picture: str) -> None:
        progress(number + done / max(total, 1), methods, f"{name}: {picture}")

    return report


def _earlier(out: Path, names: Sequence[str], non_blind: bool) -> list[ComparedMethod]:
    """Methods of earlier calls, of which `names` run again."""
    ours = [
        _own(name, non_blind) for name in OWN if name not in names and (out / name / "metrics.csv").exists()
    ]
    others = earlier_methods(out, [*names, *OWN])
    return [*ours, *(ComparedMethod(each.name, each.method, each.non_blind) for each in others)]


def _write(out: Path, settings: PictureSettings, done: dict[str, PictureEvaluation]) -> None:
    make_folder(out)
    columns = [field.name for field in fields(PictureRow)]
    lines = []
    for name, evaluation in done.items():
        lines += [[name, *asdict(row).values(), None] for row in evaluation.rows]
        for picture, reason in evaluation.failures.items():
            lines.append([name, None, picture, *[None] * (len(columns) - 2), reason])
    write_table(out / "metrics.csv", ["method", *columns, "failure"], lines)
    summaries = {name: PictureSummary.of(each.rows) for name, each in done.items() if each.rows}
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(comparison_text(settings, done, summaries), encoding="utf-8")
    data = {
        "protocol": settings.protocol,
        "versions": versions(),
        "methods": {
            name: {**(summaries[name].as_dict() if name in summaries else {}), "failures": each.failures}
            for name, each in done.items()
        },
    }
    write_json(out / "summary.json", data)


def comparison_text(
    settings: PictureSettings, done: dict[str, PictureEvaluation], summaries: dict[str, PictureSummary]
) -> str:
    """The means of the methods, why they failed, and the published figures, as tables in Markdown.

    Args:
        settings: of the comparison.
        done: evaluations by name.
        summaries: of those that have rows.
    """
    benchmark = settings.benchmark
    shown = [name for name in _SHOWN if any(name in summary.mean for summary in summaries.values())]
    text = [f"## {benchmark.title if benchmark else 'Photographs'}", ""]
    text += head_lines(["method", "pictures", *(COLUMNS[name][0] for name in shown), "worst gain"])
    for name, evaluation in done.items():
        summary = summaries.get(name)
        means = {} if summary is None else summary.mean
        worst = None if summary is None or summary.worst_gain is None else summary.worst_gain[1]
        cells = [cell(means.get(column), COLUMNS[column][1]) or "-" for column in shown]
        count = count_of(evaluation.rows, evaluation.failures)
        text.append(line([name, count, *cells, cell(worst, "+.2f") or "-"]))
    text += ["", "Means over the pictures of each method; PSNR in dB at the best shift."]
    text += failure_lines({name: evaluation.failures for name, evaluation in done.items()})
    if settings.protocol == "lai":
        text += _category_lines(done)
    if benchmark:
        text += published_lines(summaries, benchmark)
    return "\n".join(text) + "\n"


def _category_lines(done: dict[str, PictureEvaluation]) -> list[str]:
    """Mean PSNR by the category of the picture, which its name begins with, as in the paper's Table 5."""
    by_method = {
        name: {
            category: [row.psnr for row in rows if row.psnr is not None]
            for category, rows in _by_category(evaluation.rows).items()
        }
        for name, evaluation in done.items()
    }
    categories = sorted({category for means in by_method.values() for category in means})
    lines = ["", "Mean PSNR by category:", "", *head_lines(["method", *categories])]
    for name, values in by_method.items():
        means = [float(np.mean(psnrs)) if (psnrs := values.get(each)) else None for each in categories]
        lines.append(line([name, *(cell(mean, ".2f") or "-" for mean in means)]))
    return lines


def _by_category(rows: Sequence[PictureRow]) -> dict[str, list[PictureRow]]:
    found: dict[str, list[PictureRow]] = {}
    for row in rows:
        found.setdefault(row.image.partition("_")[0], []).append(row)
    return found
