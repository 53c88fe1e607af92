"""Evaluation on pictures that a camera blurred: benchmarks with true images, and photographs without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from ..checks import check_kernel_size, resolve_device
from ..errors import UserError
from ..io.images import read_image
from ..io.kernels import read_kernel
from ..metrics import kernel_metrics
from ..output.report import versions
from ..output.result import Result
from ..restoration.settings import Settings
from ..solver.passes import Progress
from .accuracy import Moment
from .datasets import BENCHMARKS, Benchmark, Picture, find_photographs, select
from .external import ExternalResult, Published, estimated_kernel, reported
from .methods import networks
from .picture_rows import PictureRow
from .picture_tables import write_outputs
from .registration import score_aligned
from .runner import ImageProgress, Source, run_cases
from .store import EvaluationStore

PHOTOGRAPHS = "photographs"
_CHECKS = ("unexplained", "coverage", "lead")  # of an estimated kernel, see `Result`
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class PictureSettings:
    """Everything that determines the figures.

    Attributes:
        protocol: "levin", "koehler", "lai" or "photographs".
        restoration: as for `latentdem.deblur`.
        prior: as for `latentdem.deblur`.
        non_blind: whether the method is given the true kernel.
        published_sizes: whether it is given the kernel sizes that published methods are given.
    """

    protocol: str
    restoration: Settings = Settings()
    prior: str = "embedded"
    non_blind: bool = False
    published_sizes: bool = False

    @property
    def benchmark(self) -> Benchmark | None:
        """The benchmark, None for photographs.

        Raises:
            UserError: another name.
        """
        if self.protocol == PHOTOGRAPHS:
            return None
        if self.protocol not in BENCHMARKS:
            known = ", ".join([*BENCHMARKS, PHOTOGRAPHS])
            raise UserError(f"There is no protocol '{self.protocol}'; there are {known}.")
        return BENCHMARKS[self.protocol]


@dataclass(frozen=True)
class PictureCase:
    """A loaded picture: input and true image (1, C, H, W) in [-1, 1], true kernel (1, 1, K, K).

    `stems` are the names that results of it may have, and `index` is its position in the folder.
    """

    blurred: Tensor
    reference: Tensor | None
    kernel: Tensor | None
    kernel_size: int | None
    stems: tuple[str, ...]
    index: int


@dataclass(frozen=True)
class PictureTask:
    """One picture, in the form that a method is given.

    Attributes:
        blurred: (1, C, H, W) in [-1, 1].
        kernel: (1, 1, K, K) the true kernel, None where the method has to estimate it.
        settings: of the restoration.
        prior: name of the prior.
        device: device to compute on.
        progress: to be called as progress(stage, done, total).
        stems, index: names and number by which published results are found.
    """

    blurred: Tensor
    kernel: Tensor | None
    settings: Settings
    prior: str
    device: torch.device
    progress: Progress
    stems: tuple[str, ...] = ()
    index: int = 0


PictureMethod = Callable[[PictureTask], Result]


@dataclass
class PictureEvaluation:
    """Result of an evaluation: its store, one row per picture, and the skipped files with the reasons."""

    store: EvaluationStore[PictureRow]
    rows: list[PictureRow]
    failures: dict[str, str]


def deblur_picture(task: PictureTask) -> Result:
    """Runs `latentdem.deblur` with the settings of the evaluation."""
    import latentdem

    return latentdem.deblur(
        task.blurred,
        kernel=task.kernel,
        prior=networks(task.prior, task.device)[0],
        device=str(task.device),
        progress=task.progress,
        value_range=(-1, 1),  # a light page has no value below 0
        **vars(task.settings),
    )


def evaluate_pictures(
    folder: str | Path,
    out: str | Path,
    settings: PictureSettings,
    *,
    method: PictureMethod = deblur_picture,
    cases: Sequence[str] = (),
    limit: int | None = None,
    device: str = "auto",
    progress: ImageProgress | None = None,
) -> PictureEvaluation:
    """Evaluates a method on a folder in the layout of a benchmark, or on photographs without true images.

    Finished pictures are kept in `out`: after an interruption the same call resumes. Files that cannot be read
    are listed and skipped.

    Args:
        folder: the benchmark, or a folder of photographs.
        out: folder of the results: metrics.csv, table.md, summary.json, contact sheets and images/.
        settings: see `PictureSettings`.
        method: restores a picture; its `str` is one of the settings, so it has to determine the method.
        cases: patterns of the names of pictures, such as "im1_*"; all without any.
        limit: stop after this many pictures.
        device: as in `latentdem.deblur`.
        progress: called with the number of pictures done, a fraction included, their total and the name of the
            current one.

    Raises:
        UserError: the folder has another layout, no pictures, unusable settings, or `out` holds an evaluation
            with other settings.
    """
    folder, out, benchmark = Path(folder), Path(out), settings.benchmark
    torch_device = resolve_device(device)
    if out.resolve() == folder.resolve():
        raise UserError(f"The results cannot go into {folder} itself; choose another folder with -o.")
    pictures = select(find_photographs(folder) if benchmark is None else benchmark.find(folder), cases, limit)
    _check(settings, pictures)
    identity = identity_of(folder, settings, method)
    store = EvaluationStore(out, identity, PictureRow)

    def restore(batch: list[PictureCase], count: Progress) -> Result:
        case, started = batch[0], process_time()
        kernel = case.kernel if settings.non_blind else None
        chosen = replace(settings.restoration, kernel_size=case.kernel_size)
        task = PictureTask(case.blurred, kernel, chosen, settings.prior, torch_device, count)
        result = method(replace(task, stems=case.stems, index=case.index))
        result.seconds.setdefault("cpu", process_time() - started)
        return result

    def measure(
        source: Source[PictureCase], case: PictureCase, result: Result, seconds: float
    ) -> tuple[PictureRow, list[Moment]]:
        return _row(source.index, source.name, case, result, settings), []

    sources = [Source(p.index, p.name, partial(_load, p, settings)) for p in pictures]
    again = isinstance(method, Published)  # its files may have changed
    rows, failures = run_cases(sources, store, restore, measure, again=again, progress=progress)
    if rows:
        if progress is not None:
            progress(len(pictures), len(pictures), "contact sheet")
        loaders = {source.index: source.load for source in sources}
        write_outputs(store, rows, failures, benchmark, identity, lambda row: _shown(loaders[row.index]()))
    return PictureEvaluation(store, rows, failures)


def _check(settings: PictureSettings, pictures: Sequence[Picture]) -> None:
    if settings.non_blind and any(picture.kernel is None for picture in pictures):
        raise UserError(
            f"There are no true kernels for the protocol {settings.protocol}; leave out --non-blind."
        )
    if settings.published_sizes and any(picture.published_size is None for picture in pictures):
        raise UserError(
            f"No kernel sizes are published for the protocol {settings.protocol}; give --kernel-size a number."
        )


def identity_of(folder: Path, settings: PictureSettings, method: PictureMethod) -> dict[str, Any]:
    """What is kept in settings.json and must not change between calls."""
    chosen = settings.restoration.as_dict(kernel_known=settings.non_blind)
    identity = {
        "folder": str(folder.resolve()),
        **{name: value for name, value in asdict(settings).items() if name != "restoration"},
        **chosen,
        "latentdem": versions()["latentdem"],
    }
    return identity if method is deblur_picture else {**identity, "method": str(method)}


def _load(picture: Picture, settings: PictureSettings) -> PictureCase:
    """A picture with what is known of it.

    Raises:
        UserError: a file cannot be read, its size is another one, or the kernel size is too large for it.
    """
    grey = settings.benchmark is not None and settings.benchmark.grey
    blurred = read_image(picture.blurred).pixels
    kernel = None if picture.kernel is None else read_kernel(picture.kernel)
    size = settings.restoration.kernel_size
    if settings.published_sizes and picture.published_size is not None:
        size = picture.published_size
    if kernel is not None and settings.non_blind:
        size = kernel.shape[-1]
    try:
        if size is not None:
            check_kernel_size(size, *blurred.shape[-2:])
    except UserError as error:
        raise UserError(f"{picture.blurred}: {error}") from None
    reference = None
    if picture.sharp is not None:
        reference = read_image(picture.sharp).pixels
        if reference.shape[-2:] != blurred.shape[-2:]:
            sizes = [f"{image.shape[-1]} x {image.shape[-2]}" for image in (blurred, reference)]
            raise UserError(
                f"{picture.blurred} is {sizes[0]} pixels and its true image {picture.sharp} {sizes[1]}; "
                "both must be of the same size."
            )
    if grey:
        blurred, reference = _grey(blurred), None if reference is None else _grey(reference)
    stems = (picture.blurred.stem, Path(picture.name).stem)
    return PictureCase(blurred, reference, kernel, size, stems, picture.index)


def _grey(image: Tensor) -> Tensor:
    """The luminance (1, 1, H, W) of an image."""
    if image.shape[1] == 1:
        return image
    return torch.einsum("bchw,c->bhw", image, torch.tensor(_LUMINANCE))[:, None]


def _row(index: int, name: str, case: PictureCase, result: Result, settings: PictureSettings) -> PictureRow:
    scores: dict[str, float] = {}
    benchmark = settings.benchmark
    if benchmark is not None and case.reference is not None:
        reference, blurred, restored = _alike(case.reference, case.blurred, result.tensor)
        before, after = (
            score_aligned(image, reference, benchmark.radius, benchmark.border) for image in (blurred, restored)
        )
        scores |= {
            "psnr_input": before.psnr,
            "psnr": after.psnr,
            "gain": after.psnr - before.psnr,
            "ssim_input": before.ssim,
            "ssim": after.ssim,
            "shift_down": after.shift[0],
            "shift_right": after.shift[1],
        }
    kernel, figures = estimated_kernel(result), reported(result)
    if case.kernel is not None and kernel is not None and not settings.non_blind:
        turned = kernel.flip(-2, -1)
        scores |= {
            "mnc": kernel_metrics(kernel, case.kernel).mnc,
            "mnc_rotated": kernel_metrics(turned, case.kernel).mnc,
        }
    return PictureRow(
        index=index,
        image=name,
        kernel_size=None if kernel is None else kernel.shape[-1],
        **{name: None if (value := getattr(result, name)) is None else float(value[0]) for name in _CHECKS},
        explained=None if isinstance(result, ExternalResult) else bool(result.explained[0]),
        cpu_seconds=None if figures["seconds"] is None else result.seconds["cpu"],
        **figures,
        **scores,
    )


def _alike(*images: Tensor) -> list[Tensor]:
    """Images with the channels of the one that has most."""
    channels = max(image.shape[1] for image in images)
    return [image.expand(-1, channels, -1, -1) for image in images]


def _shown(case: PictureCase) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return case.blurred, case.reference, case.kernel
