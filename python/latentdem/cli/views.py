"""`latentdem views`: pictures of an object without poses in, poses and new views out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _common as common


def views(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Pictures of one object from different sides, the first being the reference.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the results.", metavar="DIR", show_default=False)
    ],
    prior: Annotated[
        str,
        typer.Option(
            help="'embedded-3d', or a folder that tools/train_view_prior.py exported.",
            metavar="embedded-3d|PATH",
        ),
    ] = "embedded-3d",
    azimuths: Annotated[int, typer.Option(min=1, help="New views around the object, evenly spaced.")] = 12,
    elevations: Annotated[
        list[float] | None,
        typer.Option(
            help="Degrees above the height that the first picture was taken from (repeatable).",
            show_default="0",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Diffusion steps.")] = 50,
    seed: common.Seed = 0,
    device: common.Device = common.DeviceName.auto,
) -> None:
    """Find how a few pictures of an object were taken, and show it from all sides.

    The object is cut out by an alpha channel or from a plain background, centred and scaled; the pictures may
    have any size. Writes poses.json (polar angle, azimuth and radius relative to the first picture, with a
    confidence), the new views as view_*.png and turntable.gif, figure.png and report.json. Of one picture alone
    the views are those of the prior.
    """
    from ..files import make_folder
    from ..three_d import reconstruct
    from ..three_d.outputs import ViewOutputs

    heights = elevations or [0.0]
    make_folder(out)
    files = ViewOutputs(out, azimuths * len(heights))
    common.check_outputs(files.paths, images)
    with common.progress_bar() as advance:
        result = reconstruct(
            images,
            prior=prior,
            azimuths=azimuths,
            elevations=heights,
            steps=steps,
            seed=seed,
            device=device.value,
            progress=advance,
        )
    files.write(result, [str(path) for path in images])
    rows = [("written to", str(out))]
    for path, pose, confidence, cut in zip(images, result.poses, result.confidence, result.cut, strict=True):
        polar, azimuth, _ = pose.rad2deg().tolist()
        found = f"azimuth {azimuth:.1f}, polar {polar:.1f}, confidence {float(confidence):.2f}"
        rows.append((path.name, found + ("" if cut else "; no plain background, so taken as a whole")))
    if len(images) == 1:
        rows.append(("note", "one picture has no pose to find, and its back is the prior's guess"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    common.print_table(rows)
