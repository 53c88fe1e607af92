"""`latentdem evaluate`: the paper's protocol over a folder."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._pictures import PUBLISHED, evaluate_real, parse_kernel_size, picture_settings
from ._status import INTERRUPTED, finish
from .blur import AddedNoise, Intensity, SimulatedBoundary

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation import Evaluation, EvaluationSettings

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


class ProtocolName(str, Enum):
    """Tables of the paper, and evaluations on real pictures."""

    table1 = "paper-table1"
    table2 = "paper-table2"
    table6 = "paper-table6"
    ablations = "ablations"
    levin = "levin"
    koehler = "koehler"
    lai = "lai"
    photographs = "photographs"

    @property
    def real(self) -> bool:
        """Whether its pictures are blurred already."""
        return self in (self.levin, self.koehler, self.lai, self.photographs)


class PartName(str, Enum):
    """Parts of the posterior E-step."""

    annealing = "annealing"
    gluing = "gluing"
    skipping = "skipping"


def evaluate_command(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of sharp images, or of real pictures with their --protocol.",
            metavar="DIR",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results.", show_default="DIR_evaluation here"),
    ] = None,
    kernel_size: Annotated[
        Any,
        typer.Option(
            parser=parse_kernel_size,
            metavar=f"INTEGER|{PUBLISHED}",
            help="Width K of the square blur kernel, in pixels; at least as wide as the blur. With --protocol "
            f"levin, '{PUBLISHED}' gives the sizes that published methods are given.",
        ),
    ] = "64",
    intensity: Intensity = 0.5,
    noise_sigma: AddedNoise = 0.02,
    estimate_noise: Annotated[
        bool, typer.Option("--estimate-noise", help="Let the method estimate the noise instead of giving it.")
    ] = False,
    non_blind: Annotated[
        bool, typer.Option("--non-blind", help="Give the method the true kernel; only the image is left.")
    ] = False,
    boundary: SimulatedBoundary = option.SimulatedBoundaryName.circular,
    margin: Annotated[
        int, typer.Option(min=0, help="Pixels at every edge that the image metrics leave out.")
    ] = 0,
    cases: Annotated[
        str | None,
        typer.Option(
            help="Only these real pictures, as patterns separated by commas: im1_*,im2_kernel4.",
            show_default="all",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images, this many.")] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images of one size to restore at a time; takes more memory.")
    ] = 1,
    size: Annotated[
        int | None,
        typer.Option(
            min=16, help="Crop the images square and reduce them to this many pixels.", show_default="as is"
        ),
    ] = None,
    prior: option.Prior = "embedded",
    e_step: option.EStep = option.EStepName.proximal,
    without: Annotated[
        list[PartName] | None,
        typer.Option(help="Leave out a part of the posterior E-step (repeatable).", show_default="nothing"),
    ] = None,
    steps: option.StepsOfEStep = None,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            help="Compare the methods of one of the paper's tables instead (64 images of 256 x 256 unless "
            "--limit and --size say otherwise), or restore real pictures: DIR in the layout of the benchmark "
            "levin, koehler or lai, or photographs without true images.",
            show_default="this package's method alone",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Only these methods of the protocol, separated by commas; a wrong name lists them.",
            show_default="all but the slowest",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Iterations of the protocol's Self-Deblur.", show_default="5000"),
    ] = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Blur, restore and measure every image of a folder.

    This is the paper's protocol, with its settings as defaults. Image i gets the random motion kernel and the
    noise of seed + i. Image and kernel share a shift that cannot be determined, so image metrics are given raw
    and after the best whole-pixel shift within 8 pixels ("aligned"), kernel metrics aligned. Writes
    metrics.csv (a row per image), summary.json, contact_sheet.png and images/. Interrupted, the same command
    resumes.

    With --protocol the methods of a table of the paper run on the same inputs, each in a folder of its own;
    then metrics.csv has a row per image and method, and there are table.md and plots. Methods can be added
    later.

    With --protocol levin, koehler or lai, DIR is a benchmark of blurred pictures. They are restored with the
    defaults of `latentdem deblur` (the noise is estimated unless --noise-sigma is given), scored at the best
    shift in quarter pixels, and listed with the published figures. With --protocol photographs nothing is
    scored: look at the contact sheets.

    Exit status: 0; 1 after an error; 2 for wrong options; 4 if some images could not be evaluated; 130 if
    interrupted.
    """
    console.set_verbosity(quiet, verbose)
    from ..evaluation import EvaluationSettings, run_evaluation

    target = out or Path(f"{folder.resolve().name}_{protocol.value if protocol else 'evaluation'}")
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    if cases and not (protocol and protocol.real):
        raise UserError("--cases chooses real pictures; name their --protocol, or use --limit.")
    if kernel_size == PUBLISHED and not (protocol and protocol.real):
        raise UserError(f"--kernel-size {PUBLISHED} belongs to --protocol levin; give a number.")
    settings = EvaluationSettings(
        kernel_size=64 if kernel_size == PUBLISHED else kernel_size,
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
    if protocol is None and (methods or iterations):
        raise UserError("--methods and --iterations belong to a table; name it with --protocol.")
    try:
        with console.progress_bar() as advance:

            def progress(done: float, total: int, name: str) -> None:
                advance(f"{min(int(done) + 1, total)}/{total} {name}", done, total)

            running: dict[str, Any] = {"batch": batch_size, "device": device, "progress": progress}
            if protocol is not None and protocol.real:
                chosen = picture_settings(protocol.value, settings, kernel_size, given)
                evaluate_real(folder, target, chosen, cases, limit, device, progress)
                return
            if protocol is not None:
                _run_protocol(folder, target, protocol.value, methods, iterations, settings, limit, running)
                return
            evaluation = run_evaluation(folder, target, settings, limit=limit, **running)
    except KeyboardInterrupt:
        console.say_error(f"Interrupted; what is finished is kept in {target}, and the same command continues.")
        raise typer.Exit(INTERRUPTED) from None
    _print(evaluation, target)
    finish(evaluation.failures.values(), bool(evaluation.rows))


def _run_protocol(
    folder: Path,
    target: Path,
    name: str,
    methods: str | None,
    iterations: int | None,
    settings: EvaluationSettings,
    limit: int | None,
    running: dict[str, Any],
) -> None:
    from ..evaluation.protocols import IMAGES, PAPER_SETTINGS, PROTOCOLS, check_settings
    from ..evaluation.tables import run_protocol

    check_settings(settings)
    protocol = PROTOCOLS[name] if iterations is None else PROTOCOLS[name].with_iterations(iterations)
    entries = protocol.pick([method.strip() for method in methods.split(",")] if methods else [])
    settings = replace(settings, size=settings.size or PAPER_SETTINGS.size)
    rows = run_protocol(folder, target, protocol, entries, settings, limit=limit or IMAGES, **running)
    if any(row.evaluation.rows for row in rows):
        console.print_text((target / "table.md").read_text(encoding="utf-8"))
        console.print_text(f"Written to {target}")
    failures = dict.fromkeys(text for row in rows for text in row.evaluation.failures.values())
    finish(failures, any(row.evaluation.rows for row in rows))


def _print(evaluation: Evaluation, target: Path) -> None:
    from ..metrics import lpips_available

    if evaluation.rows:
        console.print_grid(_table(evaluation))
        console.print_text(f"Written to {target}")
        available, reason = lpips_available()
        if not available:
            console.print_text(f"LPIPS was not measured: {reason}.")


def _table(evaluation: Evaluation) -> Table:
    from rich.table import Table

    from ..evaluation.tables import cell

    mean = evaluation.mean
    shown = {name: column for name, column in _SHOWN.items() if mean[name] is not None}
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("image")
    for title, _ in shown.values():
        table.add_column(title, justify="right")
    for row in evaluation.rows:
        cells = [cell(getattr(row, name), form) for name, (_, form) in shown.items()]
        table.add_row(row.image, *cells, end_section=row is evaluation.rows[-1])
    table.add_row("mean", *(cell(mean[name], form) for name, (_, form) in shown.items()), style="bold")
    return table
