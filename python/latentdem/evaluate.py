"""The paper's protocol over a folder of sharp images: blur, restore, compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_kernel_size, resolve_device
from .errors import UserError
from .evaluation_store import EvaluationStore, Row, mean_row
from .figures import SheetRow, contact_sheet
from .files import write_json
from .io import MIN_SIDE, image_names, read_image
from .metrics import image_metrics, kernel_metrics, lpips_available
from .report import peak_memory, versions
from .result import Result
from .simulate import SimulatedBoundary, blur_and_add_noise

Progress = Callable[[float, int, str], None]
_ROWS_PER_SHEET = 32


@dataclass(frozen=True)
class EvaluationSettings:
    """Everything that determines the figures of an evaluation.

    Attributes:
        kernel_size: K of the random motion kernels, and of the estimates.
        intensity: of the motion, 0 to 1.
        noise_sigma: standard deviation of the noise, in units of [-1, 1].
        estimate_noise: whether the method is not told the noise level.
        non_blind: whether the method is told the kernel.
        boundary: "circular" as in the paper, or "valid" as in a photograph.
        margin: pixels at every edge that image metrics leave out.
        size: side that images are cut square and resized to; None leaves them.
        seed: image i has the kernel and noise of seed + i; the method always gets `seed`.
        prior: as in `latentdem.deblur`.
        e_step: as in `latentdem.deblur`.
        without: as in `latentdem.deblur`, sorted.
        steps: as in `latentdem.deblur`.
    """

    kernel_size: int = 64
    intensity: float = 0.5
    noise_sigma: float = 0.02
    estimate_noise: bool = False
    non_blind: bool = False
    boundary: SimulatedBoundary = "circular"
    margin: int = 0
    size: int | None = None
    seed: int = 0
    prior: str = "embedded"
    e_step: Literal["proximal", "posterior"] = "proximal"
    without: tuple[str, ...] = ()
    steps: int | None = None


@dataclass(frozen=True)
class Case:
    """A sharp image (1, C, H, W), its kernel (1, 1, K, K) and what the method gets to see of it."""

    reference: Tensor
    kernel: Tensor
    blurred: Tensor


@dataclass
class Evaluation:
    """What came out: one row per image, the files that could not be used with the reason, the mean row."""

    rows: list[Row] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean of every figure over the images."""
        return mean_row(self.rows)


def evaluate(
    folder: str | Path,
    out: str | Path,
    settings: EvaluationSettings,
    *,
    limit: int | None = None,
    batch: int = 1,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluates the method on the images of a folder, in alphabetical order.

    What is finished is kept in `out`: after an interruption, the same call continues. Files that cannot be
    read, or are too small, are listed and passed over.

    Args:
        folder: of sharp images.
        out: metrics.csv, summary.json, settings.json, contact sheets and images/ go here.
        settings: see `EvaluationSettings`.
        limit: stop after this many images.
        batch: restore up to this many consecutive images of one size at a time; the figures do not depend on
            it, but for the seconds, which are shared equally.
        device: as in `latentdem.deblur`.
        progress: called with the number of images done (fractions while one is in work), their total and
            the name of the image in work.

    Raises:
        UserError: no images, unusable settings, or `out` holds an evaluation with other settings.
    """
    resolve_device(device)
    folder, out = Path(folder), Path(out)
    names = image_names(folder)[:limit]
    if out.resolve() == folder.resolve():
        raise UserError(f"The results cannot go into {folder} itself; choose another folder with -o.")
    identity = {"folder": str(folder.resolve()), **asdict(settings), "latentdem": versions()["latentdem"]}
    store = EvaluationStore(out, identity)
    evaluation = Evaluation()
    report = progress or (lambda done, total, name: None)
    waiting: list[tuple[int, str, Case]] = []

    def restore_waiting() -> None:
        done, shown = len(evaluation.rows) + len(evaluation.failures), ", ".join(name for _, name, _ in waiting)

        def within(stage: str, part: int, whole: int) -> None:
            report(done + len(waiting) * part / max(whole, 1), len(names), shown)

        for row, result in _restore(waiting, settings, device, within) if waiting else ():
            if not result.finite:
                evaluation.failures[row.image] = "the result has values that are not finite."
                continue
            store.add(row, result.image, result.kernel)
            evaluation.rows.append(row)
        waiting.clear()

    for index, name in enumerate(names):
        report(len(evaluation.rows) + len(evaluation.failures), len(names), name)
        row = store.find(index, name)
        if row is not None:
            evaluation.rows.append(row)
            continue
        try:
            case = make_case(folder / name, index, settings)
        except UserError as error:
            evaluation.failures[name] = str(error)
            continue
        if waiting and (len(waiting) == batch or waiting[0][2].blurred.shape != case.blurred.shape):
            restore_waiting()
        waiting.append((index, name, case))
    restore_waiting()
    evaluation.rows.sort(key=lambda row: row.index)
    report(len(names), len(names), "contact sheet")
    if evaluation.rows:
        _write_summary(out / "summary.json", evaluation, identity)
        _write_sheets(store, evaluation.rows, folder, settings)
    return evaluation


def make_case(path: Path, index: int, settings: EvaluationSettings) -> Case:
    """The test case of image number `index`, the same at every call.

    Raises:
        UserError: the image cannot be read or is too small.
    """
    from .motion import motion_kernel

    sharp = read_image(path).pixels
    if settings.size is not None:
        sharp = _resized(sharp, settings.size, path)
    generator = np.random.default_rng(settings.seed + index)
    kernel = motion_kernel(settings.kernel_size, settings.intensity, generator)
    blurred, reference = blur_and_add_noise(sharp, kernel, settings.noise_sigma, generator, settings.boundary)
    check_kernel_size(settings.kernel_size, *blurred.shape[-2:])
    if min(blurred.shape[-2:]) - 2 * settings.margin < MIN_SIDE:
        raise UserError(
            f"Without a margin of {settings.margin} less than {MIN_SIDE} x {MIN_SIDE} pixels are left of "
            f"{path.name}, blurred {blurred.shape[-1]} x {blurred.shape[-2]}; use a smaller one."
        )
    return Case(reference, kernel, blurred)


def _resized(sharp: Tensor, size: int, path: Path) -> Tensor:
    """The central square, reduced to size x size with antialiasing."""
    height, width = sharp.shape[-2:]
    side = min(height, width)
    if side < size:
        raise UserError(f"{path} is {width} x {height} pixels, too small for --size {size}.")
    top, left = (height - side) // 2, (width - side) // 2
    square = sharp[..., top : top + side, left : left + side]
    if side == size:
        return square
    return F.interpolate(square, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)


def _restore(
    cases: list[tuple[int, str, Case]],
    settings: EvaluationSettings,
    device: str,
    progress: Callable[[str, int, int], None],
) -> list[tuple[Row, Result]]:
    """Row and result of each of `cases`, (index, name, case) of one size, restored together."""
    import latentdem

    kernels = torch.cat([case.kernel for _, _, case in cases])
    started = perf_counter()
    results = latentdem.deblur(
        torch.cat([case.blurred for _, _, case in cases]),
        settings.kernel_size,
        kernel=kernels if settings.non_blind else None,
        noise_sigma=None if settings.estimate_noise else settings.noise_sigma,
        prior=settings.prior,
        e_step=settings.e_step,
        without=settings.without,
        steps=settings.steps,
        seed=settings.seed,
        device=device,
        boundary=settings.boundary,
        progress=progress,
    )
    seconds = (perf_counter() - started) / len(cases)
    return [
        (_row(index, name, case, results[i], settings, seconds), results[i])
        for i, (index, name, case) in enumerate(cases)
    ]


def _row(
    index: int, name: str, case: Case, result: Result, settings: EvaluationSettings, seconds: float
) -> Row:
    blurred, restored, reference = (
        _without_margin(image, settings.margin) for image in (case.blurred, result.image, case.reference)
    )
    before, after = image_metrics(blurred, reference), image_metrics(restored, reference)
    kernel = None if settings.non_blind else kernel_metrics(result.kernel, case.kernel)
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
        noise_sigma=float(result.noise_sigma[0]),
        residual=float(result.residual[0]),
        seconds=seconds,
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


def _write_sheets(store: EvaluationStore, rows: list[Row], folder: Path, settings: EvaluationSettings) -> None:
    for page, first in enumerate(range(0, len(rows), _ROWS_PER_SHEET)):
        name = f"contact_sheet_{page + 1}.png" if page else "contact_sheet.png"
        shown = [
            _sheet_row(store, row, make_case(folder / row.image, row.index, settings))
            for row in rows[first : first + _ROWS_PER_SHEET]
        ]
        contact_sheet(shown, store.folder / name)


def _sheet_row(store: EvaluationStore, row: Row, case: Case) -> SheetRow:
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
        kernel_caption="given kernel" if row.mnc is None else f"MNC {row.mnc:.3f}",
    )
