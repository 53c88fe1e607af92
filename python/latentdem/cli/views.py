"""`latentdem views`: finds the poses of pictures of an object and generates new views."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._jobs import expand
from ._outputs import Existing, check_outputs
from ._status import FAILED, INTERRUPTED

SURFACE_SHARE = 0.3  # time of the mesh, in units of that of poses and views

ViewPriorName = Annotated[
    str,
    typer.Option(
        help="'embedded-3d'; 'zero123' or 'zero123-xl'; or the folder of a view prior of your own.",
        metavar="embedded-3d|zero123|PATH",
    ),
]


class SurfaceName(str, Enum):
    """Ways to fit a mesh."""

    volume = "volume"
    gsplat = "gsplat"


def views_command(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Pictures of one object from different sides, the first being the reference; or a pattern.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the results.", metavar="DIR", show_default=False)
    ],
    prior: ViewPriorName = "embedded-3d",
    azimuths: Annotated[int, typer.Option(min=1, help="New views around the object, evenly spaced.")] = 12,
    elevations: Annotated[
        list[float] | None,
        typer.Option(
            help="Degrees above the height of the first picture's camera (repeatable).",
            show_default="0",
        ),
    ] = None,
    mesh: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the object as a mesh with colours to this .glb, .obj or .ply file.",
            show_default=False,
        ),
    ] = None,
    surface: Annotated[
        SurfaceName,
        typer.Option(help="How the mesh is fitted: 'gsplat' needs a CUDA device and the package gsplat."),
    ] = SurfaceName.volume,
    video: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the turntable to this .mp4 file.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the run in this folder; after an interruption the same command resumes it.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Diffusion steps.")] = 50,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    overwrite: option.Overwrite = False,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Find the camera poses of a few pictures of an object, and show it from all sides.

    The object is cut out by an alpha channel or from a plain background, centred and scaled (pictures of one
    width and height by a common factor), and then moved and scaled to its middle as the prior estimates it;
    with several pictures the search corrects this estimate. Writes poses.json (polar angle, azimuth and
    radius relative to the first picture, with a confidence), the new views as view_*.png and turntable.gif,
    figure.png and report.json; with --mesh also a surface that fits all views. With a single picture, the
    views are those of the prior.

    Exit status: 0; 1 after an error; 2 for wrong options; 130 if interrupted.
    """
    console.set_verbosity(quiet, verbose)
    from ..io.files import make_folder
    from ..three_d import reconstruct
    from ..three_d.checkpoint import ViewCheckpoint
    from ..three_d.mesh.solid import check_mesh
    from ..three_d.output.files import ViewOutputs
    from ..three_d.output.video import check_video

    if mesh is not None:
        check_mesh(surface.value, mesh)
    if video is not None:
        check_video(video)
    heights = elevations or [0.0]
    images = expand(images)
    make_folder(out)
    files, names = ViewOutputs(out, azimuths * len(heights), mesh, video), [str(path) for path in images]
    resumed = checkpoint is not None and checkpoint.is_dir()
    check_outputs(files.paths, images, Existing(overwrite or resumed))
    total = 1.0 if mesh is None else 1.0 + SURFACE_SHARE
    run = None if checkpoint is None else ViewCheckpoint(checkpoint)
    written, failure = False, None
    try:
        with console.progress_bar() as advance:
            result = reconstruct(
                images,
                prior=prior,
                azimuths=azimuths,
                elevations=heights,
                steps=steps,
                seed=seed,
                device=device,
                checkpoint=run,
                progress=lambda phase, done, _: advance(phase, done, total),
            )
            files.write(result, names)
            written = True
            if mesh is not None:
                solid = result.solid(
                    surface.value,
                    lambda phase, done, steps: advance(phase, 1 + SURFACE_SHARE * done / steps, total),
                )
                files.write_solid(solid, result, names)
    except KeyboardInterrupt:
        if not written and run is None:
            raise
        resumable = f"the run is kept in {checkpoint}, and the same command resumes it"
        console.say_error(
            f"Interrupted; {resumable if run else f'the views are in {out}, the mesh is not written'}."
        )
        raise typer.Exit(INTERRUPTED) from None
    except UserError as error:
        if not written:
            raise
        failure = f"{error} The views are written, the mesh is not."
    if run is not None:
        run.remove()
    rows = [("written to", str(out) if mesh is None or failure else f"{out} and {mesh}")]
    for path, pose, confidence, cut in zip(images, result.poses, result.confidence, result.cut, strict=True):
        polar, azimuth, _ = pose.rad2deg().tolist()
        text = f"azimuth {azimuth:.1f}, polar {polar:.1f}, confidence {float(confidence):.2f}"
        rows.append((path.name, text + ("" if cut else "; no plain background, so taken as a whole")))
    if len(images) == 1:
        rows.append(("note", "one picture has no pose to find, and its back is the prior's guess"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    console.print_table(rows)
    if failure is not None:
        console.say_error(failure)
        raise typer.Exit(FAILED)
