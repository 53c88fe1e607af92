"""`latentdem evaluate-3d`: measures poses, views and meshes of held-out objects against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import _common as common
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
    seed: common.Seed = 0,
    device: common.Device = common.DeviceName.auto,
) -> None:
    """Measure poses, new views and meshes on procedural objects that the prior was not trained on.

    Every object has known views from three cameras whose azimuths differ by 30 to 180 degrees. One view alone
    is compared with two and three views of unknown poses, with two views of known poses, and with parts of
    the method left out, all on the same inputs. Writes metrics.csv (a row per object and method), table.md,
    summary.json, meshes.png, and the views of each object as objects/NNN/views.png. After an interruption the
    same command resumes.
    """
    from ..three_d.mesh.solid import check_mesh

    check_mesh("volume", drawn=True)
    from ..three_d.evaluation.cases import ViewSettings
    from ..three_d.evaluation.loop import evaluate_views
    from ..three_d.evaluation.methods import pick

    settings, chosen = ViewSettings(prior, views, steps, seed), pick(methods)
    try:
        with common.progress_bar() as advance:

            def progress(done: float, total: int, name: str) -> None:
                advance(f"{min(int(done) + 1, total)}/{total} {name}", done, total)

            evaluation = evaluate_views(
                out, settings, chosen, objects=objects, device=device.value, progress=progress
            )
    except KeyboardInterrupt:
        common.say_error(f"Interrupted; what is finished is kept in {out}, and the same command continues.")
        raise typer.Exit(common.INTERRUPTED) from None
    for name, reason in evaluation.failures.items():
        common.say_error(f"Skipped: {name}: {reason}")
    if not evaluation.rows:
        raise typer.Exit(1)
    console = Console()
    for text in ((out / "table.md").read_text(encoding="utf-8"), f"Written to {out}"):
        console.print(text, soft_wrap=True, markup=False, highlight=False)
