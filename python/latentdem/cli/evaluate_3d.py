"""`latentdem evaluate-3d`: measures poses, views and meshes of objects against the truth."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from . import _console as console
from . import _options as option
from ._status import INTERRUPTED, finish
from .views import ViewPriorName


class Up(str, Enum):
    """Axes that may point up."""

    z = "z"
    y = "y"


class LightName(str, Enum):
    """What the light stays with."""

    object = "object"
    camera = "camera"


def evaluate_3d_command(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of GLB, OBJ or PLY files, also in folders in it, or one file; without it, procedural "
            "objects that the embedded prior was not trained on.",
            metavar="[OBJECTS]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.", metavar="DIR")] = Path(
        "evaluation-3d"
    ),
    objects: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of objects, the first by name; more can be added later.",
            show_default="all files, or 20 procedural",
        ),
    ] = None,
    up: Annotated[Up, typer.Option(help="Axis of the files that points up.")] = Up.z,
    light: Annotated[LightName, typer.Option(help="What the light stays with.")] = LightName.object,
    views: Annotated[int, typer.Option(min=1, help="New views around each object, evenly spaced.")] = 12,
    prior: ViewPriorName = "embedded-3d",
    steps: Annotated[int, typer.Option(min=2, help="Diffusion steps.")] = 50,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these methods, separated by commas (repeatable): names, of which a wrong one lists all; "
            "[NAME=]published:FOLDER, results of another program; [NAME=]command:PROGRAM, a command line with "
            "{view1} and {output}. More can be added later.",
            metavar="TEXT",
            show_default="all of this package",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a program of --methods is stopped, per object.")
    ] = 3600.0,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Only write the known views of the objects to this folder, for other programs.",
            metavar="FOLDER",
            show_default="no",
        ),
    ] = None,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Measure poses, new views and meshes on objects that are known: files of meshes, or procedural ones.

    Every object has known views from three cameras whose azimuths differ by 30 to 180 degrees. One view alone
    is compared with two and three views of unknown poses, with two views of known poses, and with parts of
    the method left out, all on the same inputs. Writes metrics.csv (a row per object and method), objects.md (a
    row per object), table.md, summary.json, meshes.png, and the views of each object as objects/NNN/views.png.
    After an interruption the same command resumes.

    Exit status: 0; 1 after an error; 2 for wrong options; 4 if some objects could not be evaluated; 130 if
    interrupted.
    """
    console.set_verbosity(quiet, verbose)
    from ..three_d.mesh.solid import check_mesh

    check_mesh("volume")
    from ..evaluation.method_names import ALL, split_methods
    from ..three_d.evaluation.cases import ViewSettings
    from ..three_d.evaluation.external import ExternalViews, export_objects, external_views
    from ..three_d.evaluation.loop import evaluate_views
    from ..three_d.evaluation.methods import METHODS, ViewMethod, pick
    from ..three_d.objects.sets import ObjectFiles, ProceduralObjects

    chosen_objects = ProceduralObjects() if folder is None else ObjectFiles.of(folder, up.value)
    settings = ViewSettings(prior, views, steps, seed, chosen_objects, light.value)
    known = [method.name for method in METHODS]
    names, specs = split_methods(methods or [ALL])
    own = pick(None if ALL in names else ",".join(names)) if names else ()
    chosen: list[ViewMethod | ExternalViews] = [*own, *external_views(specs, known, time_limit)]
    if export is not None:
        left_out = export_objects(export, settings, objects)
        console.print_text(f"Written to {export}")
        finish(left_out, len(left_out) < settings.objects.count(objects))
        return
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
        console.print_report(out)
    finish([f"{name}: {reason}" for name, reason in evaluation.failures.items()], bool(evaluation.rows))
