"""`latentdem evaluate`: the paper's protocol over a folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from . import _common as common
from .blur import Boundary, Intensity, Noise

if TYPE_CHECKING:
    from ..evaluate import Evaluation

_SHOWN = {
    "psnr_input": ("PSNR input", ".2f"),
    "psnr": ("PSNR", ".2f"),
    "psnr_aligned": ("aligned", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "ssim_aligned": ("aligned", ".3f"),
    "lpips": ("LPIPS", ".3f"),
    "kernel_mse": ("kernel MSE", ".4f"),
    "mnc": ("MNC", ".3f"),
    "residual": ("residual", ".4f"),
    "seconds": ("seconds", ".1f"),
}


class PartName(str, Enum):
    """Parts of the posterior E-step."""

    annealing = "annealing"
    gluing = "gluing"
    skipping = "skipping"


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of sharp images.", metavar="DIR", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results.", show_default="DIR_evaluation here"),
    ] = None,
    kernel_size: common.KernelSize = 64,
    intensity: Intensity = 0.5,
    noise_sigma: Noise = 0.02,
    estimate_noise: Annotated[
        bool, typer.Option("--estimate-noise", help="Let the method estimate the noise instead of telling it.")
    ] = False,
    non_blind: Annotated[
        bool, typer.Option("--non-blind", help="Tell the method the true kernel: what is left for the image.")
    ] = False,
    boundary: Boundary = common.SimulatedBoundaryName.circular,
    margin: Annotated[
        int, typer.Option(min=0, help="Pixels at every edge that the image metrics leave out.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Images of one size to restore at a time; takes more memory.")
    ] = 1,
    size: Annotated[
        int | None,
        typer.Option(
            min=16, help="Cut the images square and reduce them to this many pixels.", show_default="as is"
        ),
    ] = None,
    prior: common.Prior = "embedded",
    e_step: common.EStep = common.EStepName.proximal,
    without: Annotated[
        list[PartName] | None,
        typer.Option(help="Leave out a part of the posterior E-step (repeatable).", show_default="nothing"),
    ] = None,
    steps: common.Steps = None,
    seed: common.Seed = 0,
    device: common.Device = common.DeviceName.auto,
) -> None:
    """Blur, restore and measure every image of a folder.

    This is the paper's protocol, with its settings as defaults. Image i gets the random motion kernel and the
    noise of seed + i. Image and kernel share a shift that nobody can know, so image metrics are given raw and
    after the best whole-pixel shift within 8 pixels ("aligned"), kernel metrics aligned. Writes metrics.csv (a
    row per image), summary.json, contact_sheet.png and images/. Interrupted, the same command continues.
    """
    from ..evaluate import EvaluationSettings
    from ..evaluate import evaluate as run

    target = out or Path(f"{folder.resolve().name}_evaluation")
    settings = EvaluationSettings(
        kernel_size=kernel_size,
        intensity=intensity,
        noise_sigma=noise_sigma,
        estimate_noise=estimate_noise,
        non_blind=non_blind,
        boundary=boundary.value,
        margin=margin,
        size=size,
        seed=seed,
        prior=prior,
        e_step=e_step.value,
        without=tuple(sorted({part.value for part in without or ()})),
        steps=steps,
    )
    try:
        with common.progress_bar() as advance:

            def progress(done: float, total: int, name: str) -> None:
                advance(f"{min(int(done) + 1, total)}/{total} {name}", done, total)

            evaluation = run(
                folder, target, settings, limit=limit, batch=batch, device=device.value, progress=progress
            )
    except KeyboardInterrupt:
        common.say_error(f"Interrupted; what is finished is kept in {target}, and the same command continues.")
        raise typer.Exit(common.INTERRUPTED) from None
    _print(evaluation, target)
    if not evaluation.rows:
        raise typer.Exit(1)


def _print(evaluation: Evaluation, target: Path) -> None:
    from ..metrics import lpips_available

    console = Console()
    if evaluation.rows:
        console.print(_table(evaluation))
        console.print(f"Written to {target}", soft_wrap=True, markup=False, highlight=False)
        available, reason = lpips_available()
        if not available:
            console.print(f"LPIPS was not measured: {reason}.", soft_wrap=True, markup=False, highlight=False)
    for reason in evaluation.failures.values():
        common.say_error(f"Passed over: {reason}")


def _table(evaluation: Evaluation) -> Table:
    mean = evaluation.mean
    shown = {name: column for name, column in _SHOWN.items() if mean[name] is not None}
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("image")
    for title, _ in shown.values():
        table.add_column(title, justify="right")
    for row in evaluation.rows:
        cells = [_cell(getattr(row, name), form) for name, (_, form) in shown.items()]
        table.add_row(row.image, *cells, end_section=row is evaluation.rows[-1])
    table.add_row("mean", *(_cell(mean[name], form) for name, (_, form) in shown.items()), style="bold")
    return table


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
