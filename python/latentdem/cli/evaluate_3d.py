"""`latentdem evaluate-3d`: measures poses, views and meshes of held-out objects against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _console as console
from . import _options as option
from ._status import INTERRUPTED, finish
from .views import ViewPriorName


def evaluate_3d_command(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the results.", metavar="DIR", show_default=False)
    ],
    objects: Annotated[int, typer.Option(min=1, help="Number of objects; more can be added later.")] = 20,
    views: Annotated[int, typer.Option(min=1, help="New views around each object, evenly spaced.")] = 12,
    prior: ViewPriorName = "embedded-3d",
    steps: Annotated[int, typer.Option(min=2, help="Diffusion steps.")] = 50,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Only these methods, separated by commas; a wrong name lists them. More can be added later.",
            show_default="all",
        ),
    ] = None,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Measure poses, new views and meshes on procedural objects that the prior was not trained on.

    Every object has known views from three cameras whose azimuths differ by 30 to 180 degrees. One view alone
    is compared with two and three views of unknown poses, with two views of known poses, and with parts of
    the method left out, all on the same inputs. Writes metrics.csv (a row per object and method), table.md,
    summary.json, meshes.png, and the views of each object as objects/NNN/views.png. After an interruption the
    same command resumes.

    Exit status: 0; 1 after an error; 2 for wrong options; 4 if some objects could not be evaluated; 130 if
    interrupted.
    """
    console.set_verbosity(quiet, verbose)
    from ..three_d.mesh.solid import check_mesh

    check_mesh("volume", drawn=True)
    from ..three_d.evaluation.cases import ViewSettings
    from ..three_d.evaluation.loop import evaluate_views
    from ..three_d.evaluation.methods import pick

    settings, chosen = ViewSettings(prior, views, steps, seed), pick(methods)
    try:
        with console.progress_bar() as advance:

            def progress(done: float, total: int, name: str) -> None:
                advance(f"{min(int(done) + 1, total)}/{total} {name}", done, total)

            evaluation = evaluate_views(
                out, settings, chosen, objects=objects, device=device, progress=progress
            )
    except KeyboardInterrupt:
        console.say_error(f"Interrupted; what is finished is kept in {out}, and the same command continues.")
        raise typer.Exit(INTERRUPTED) from None
    if evaluation.rows:
        console.print_text((out / "table.md").read_text(encoding="utf-8"))
        console.print_text(f"Written to {out}")
    finish([f"{name}: {reason}" for name, reason in evaluation.failures.items()], bool(evaluation.rows))
