"""`latentdem evaluate`: the paper's protocol over a folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._pictures import PUBLISHED, compare_real, evaluate_real, parse_kernel_size, picture_settings
from ._status import INTERRUPTED, finish
from ._tables import ProtocolName, as_the_table, export_inputs, run_table, table_of
from .blur import AddedNoise, Intensity, SimulatedBoundary

if TYPE_CHECKING:
    from rich.table import Table

    from ..evaluation import Evaluation

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
        typer.Option(
            "--out", "-o", help="Folder of the results.", metavar="DIR", show_default="DIR_evaluation here"
        ),
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
        list[str] | None,
        typer.Option(
            help="Compare these methods, separated by commas (repeatable): names, of which a wrong one lists "
            "all; [NAME=]published:FOLDER, results of another program; [NAME=]command:PROGRAM, a command line "
            "with {input} and {output}.",
            metavar="TEXT",
            show_default="all of a paper's table but the slowest",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a program of --methods is stopped, per image.")
    ] = 3600.0,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Only write the blurred images, their kernels and the sharp images to this folder, for other "
            "programs.",
            metavar="FOLDER",
            show_default="no",
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
    and after the best shift of quarter pixels within 8 pixels ("aligned"), kernel metrics aligned. Writes
    metrics.csv (a row per image), summary.json, contact_sheet.png and images/. Interrupted, the same command
    resumes.

    With --methods several methods run on the same inputs, each in a folder of its own; then metrics.csv has a
    row per image and method, and there are table.md and plots. With --protocol the methods are those of a table
    of the paper. Methods can be added later.

    With --protocol levin, koehler or lai, DIR is a benchmark of blurred pictures. They are restored with the
    defaults of `latentdem deblur` (the noise is estimated unless --noise-sigma is given), scored at the best
    shift in quarter pixels, and listed with the published figures. With --protocol photographs nothing is
    scored: look at the contact sheets.

    Exit status: 0; 1 after an error; 2 for wrong options; 4 if some images could not be evaluated; 130 if
    interrupted.
    """
    console.set_verbosity(quiet, verbose)
    from ..evaluation import EvaluationSettings, run_evaluation

    kind = protocol.value if protocol else "methods" if methods else "evaluation"
    if methods and protocol and protocol.real:
        kind += "_methods"
    target = out or Path(f"{folder.resolve().name}_{kind}")
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    if cases and not (protocol and protocol.real):
        raise UserError("--cases chooses real pictures; name their --protocol, or use --limit.")
    if kernel_size == PUBLISHED and not (protocol and protocol.real):
        raise UserError(f"--kernel-size {PUBLISHED} belongs to --protocol levin; give a number.")
    if noise_sigma == 0 and not estimate_noise:
        raise UserError("The method needs a noise level above 0; add --estimate-noise, or give some noise.")
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
    if protocol is None and iterations:
        raise UserError("--iterations belongs to a table of the paper; name it with --protocol.")
    if export is not None:
        export_inputs(folder, export, protocol, settings, limit)
        return
    try:
        with console.progress_bar() as advance:

            def progress(done: float, total: int, name: str) -> None:
                advance(f"{min(int(done) + 1, total)}/{total} {name}", done, total)

            running: dict[str, Any] = {"batch": batch_size, "device": device, "progress": progress}
            if protocol is not None and protocol.real:
                chosen = picture_settings(protocol.value, settings, kernel_size, given)
                if methods:
                    compare_real(folder, target, chosen, methods, time_limit, cases, limit, device, progress)
                else:
                    evaluate_real(folder, target, chosen, cases, limit, device, progress)
                return
            if protocol is not None or methods:
                table = table_of(protocol, iterations, settings)
                settings, limit = as_the_table(protocol, settings, limit)
                run_table(folder, target, table, methods or [], time_limit, settings, limit, running)
                return
            evaluation = run_evaluation(folder, target, settings, limit=limit, **running)
    except KeyboardInterrupt:
        console.say_error(f"Interrupted; what is finished is kept in {target}, and the same command continues.")
        raise typer.Exit(INTERRUPTED) from None
    _print(evaluation, target)
    finish(evaluation.failures.values(), bool(evaluation.rows))


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
