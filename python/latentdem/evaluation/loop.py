"""The paper's protocol over a folder of sharp images: blur, restore, compare with the original."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import resolve_device
from ..errors import UserError
from ..io.files import write_json
from ..io.images import image_names
from ..metrics import image_metrics, kernel_metrics, lpips_available
from ..output.report import peak_memory, versions
from ..output.result import Result
from ..output.sheets import SheetRow, contact_sheet
from ..solver.passes import Progress
from .accuracy import Moment, accuracy
from .cases import Case, EvaluationSettings, Method, Task, make_case
from .external import Program, Published, estimated_kernel, reported
from .methods import deblur_task
from .runner import ImageProgress, Source, run_cases
from .store import EvaluationStore, Row, mean_row

_ROWS_PER_SHEET = 32


@dataclass
class Evaluation:
    """Outcome of an evaluation: its folder, a row per image, and the reason for every file that failed."""

    store: EvaluationStore[Row]
    rows: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean of every figure over the images."""
        return mean_row(self.rows)


def run_evaluation(
    folder: str | Path,
    out: str | Path,
    settings: EvaluationSettings,
    *,
    method: Method = deblur_task,
    limit: int | None = None,
    batch: int = 1,
    device: str = "auto",
    progress: ImageProgress | None = None,
) -> Evaluation:
    """Evaluates a method on the images of a folder, in alphabetical order.

    Finished images are kept in `out`: after an interruption the same call resumes. Files that cannot be read,
    or are too small, are listed and skipped.

    Args:
        folder: folder of sharp images.
        out: folder of the results: metrics.csv, summary.json, settings.json, contact sheets and images/.
        settings: see `EvaluationSettings`.
        method: restores the images; its `str` is one of the settings, so it has to determine the method.
        limit: stop after this many images.
        batch: restore up to this many consecutive images of one size at a time; no figure depends on it but the
            seconds, which are shared equally.
        device: as in `latentdem.deblur`.
        progress: called with the number of images done, a fraction included, their total and the name of the
            current image.

    Raises:
        UserError: no images, unusable settings, or `out` holds an evaluation with other settings.
    """
    torch_device = resolve_device(device)
    folder, out = Path(folder), Path(out)
    names = image_names(folder)[:limit]
    if out.resolve() == folder.resolve():
        raise UserError(f"The results cannot go into {folder} itself; choose another folder with -o.")
    identity = _identity(folder, settings, method)
    store = EvaluationStore(out, identity, Row)

    def restore(cases: list[Case], count: Progress) -> Result:
        blurred, kernels = torch.cat([c.blurred for c in cases]), torch.cat([c.kernel for c in cases])
        names, indices = tuple(c.name for c in cases), tuple(c.index for c in cases)
        return method(Task(blurred, kernels, settings, torch_device, count, names, indices))

    def measure(source: Source[Case], case: Case, result: Result, seconds: float) -> tuple[Row, list[Moment]]:
        moments = [] if settings.non_blind else accuracy(result, case.kernel)
        return _row(source.index, source.name, case, result, settings, seconds), moments

    sources = [Source(i, name, partial(make_case, folder / name, i, settings)) for i, name in enumerate(names)]
    if isinstance(method, (Published, Program)):
        batch = 1
    again = isinstance(method, Published)  # its files may have changed
    rows, failures = run_cases(sources, store, restore, measure, batch=batch, again=again, progress=progress)
    evaluation = Evaluation(store, rows, failures)
    if progress is not None:
        progress(len(names), len(names), "contact sheet")
    if evaluation.rows:
        _write_summary(out / "summary.json", evaluation, identity)
        _write_sheets(store, evaluation.rows, folder, settings)
    return evaluation


def finished(
    folder: str | Path, out: str | Path, settings: EvaluationSettings, method: Method
) -> Evaluation | None:
    """Results that `run_evaluation` with these arguments has left in `out` so far; None without any.

    Raises:
        UserError: `out` holds an evaluation with other settings.
    """
    if not (Path(out) / "metrics.csv").exists():
        return None
    store = EvaluationStore(Path(out), _identity(Path(folder), settings, method), Row)
    return Evaluation(store, list(store.rows))


def _identity(folder: Path, settings: EvaluationSettings, method: Method) -> dict[str, Any]:
    identity = {"folder": str(folder.resolve()), **asdict(settings), "latentdem": versions()["latentdem"]}
    return identity if method is deblur_task else {**identity, "method": str(method)}


def _row(
    index: int, name: str, case: Case, result: Result, settings: EvaluationSettings, seconds: float
) -> Row:
    blurred, restored, reference = (
        _without_margin(image, settings.margin) for image in (case.blurred, result.tensor, case.reference)
    )
    before, after = image_metrics(blurred, reference), image_metrics(restored, reference)
    estimate = None if settings.non_blind else estimated_kernel(result)
    kernel = None if estimate is None else kernel_metrics(estimate, case.kernel)
    figures = reported(result)
    if figures["seconds"] is not None:
        figures["seconds"] = seconds  # its share of a batch
    return Row(
        index=index,
        image=name,
        psnr_input=before.psnr,
        psnr_input_aligned=before.psnr_aligned,
        psnr=after.psnr,
        psnr_aligned=after.psnr_aligned,
        ssim=after.ssim,
        ssim_aligned=after.ssim_aligned,
        lpips=after.lpips,
        lpips_aligned=after.lpips_aligned,
        kernel_mse=kernel.mse if kernel else None,
        mnc=kernel.mnc if kernel else None,
        **figures,
    )


def _without_margin(image: Tensor, margin: int) -> Tensor:
    height, width = image.shape[-2:]
    return image[..., margin : height - margin, margin : width - margin]


def _write_summary(path: Path, evaluation: Evaluation, identity: dict[str, Any]) -> None:
    rows = evaluation.rows
    available, reason = lpips_available()
    summary = {
        "settings": identity,
        "versions": versions(),
        "images": len(rows),
        "failures": evaluation.failures,
        "mean": evaluation.mean,
        "gain_aligned": {
            "over_input": _mean_and_worst([row.psnr_aligned - row.psnr_input for row in rows]),
            "over_aligned_input": _mean_and_worst([row.psnr_aligned - row.psnr_input_aligned for row in rows]),
        },
        "lpips": "measured" if available else f"not measured: {reason}",
        "peak_memory": peak_memory(),
    }
    write_json(path, summary)


def _mean_and_worst(gains: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(gains)), "worst": min(gains)}


def _write_sheets(
    store: EvaluationStore[Row], rows: list[Row], folder: Path, settings: EvaluationSettings
) -> None:
    for page, first in enumerate(range(0, len(rows), _ROWS_PER_SHEET)):
        name = f"contact_sheet_{page + 1}.png" if page else "contact_sheet.png"
        shown = [
            _sheet_row(store, row, make_case(folder / row.image, row.index, settings), settings)
            for row in rows[first : first + _ROWS_PER_SHEET]
        ]
        contact_sheet(shown, store.folder / name)


def _sheet_row(store: EvaluationStore[Row], row: Row, case: Case, settings: EvaluationSettings) -> SheetRow:
    image, kernel = store.load(row)
    return SheetRow(
        name=row.image,
        blurred=case.blurred,
        image=image,
        reference=case.reference,
        kernel=kernel,
        true_kernel=case.kernel,
        blurred_caption=f"{row.psnr_input:.2f} dB",
        image_caption=f"{row.psnr:.2f} dB, aligned {row.psnr_aligned:.2f} dB",
        kernel_caption=_kernel_caption(row, settings),
    )


def _kernel_caption(row: Row, settings: EvaluationSettings) -> str:
    if row.mnc is not None:
        return f"MNC {row.mnc:.3f}"
    return "given kernel" if settings.non_blind else "no kernel"
