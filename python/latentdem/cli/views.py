"""`latentdem views`: finds the poses of pictures of an object and generates new views."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._jobs import expand
from ._outputs import Existing, check_outputs
from ._status import FAILED, INTERRUPTED, UNEXPLAINED

if TYPE_CHECKING:
    from torch import Tensor

    from ..three_d.pictures import Picture

PRIOR_SIZE = 64  # pixels along one side of the views of the embedded prior
LIKELY = 0.2  # probability from which another pose is named
UNDECIDED = 0.5  # confidence below which another pose is as likely as the one that was found
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
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the results.",
            metavar="DIR",
            show_default="IMAGE_views beside the first IMAGE",
        ),
    ] = None,
    prior: ViewPriorName = "embedded-3d",
    cutout: Annotated[
        str,
        typer.Option(
            help="How the object is cut out: by transparency, from a background of one colour, by OpenCV's "
            "GrabCut, by the first of these that is possible, or by masks, white where the object is: a file, "
            "or a folder of files called like the pictures.",
            metavar="auto|alpha|plain|grabcut|MASK",
        ),
    ] = "auto",
    azimuths: Annotated[int, typer.Option(min=1, help="New views around the object, evenly spaced.")] = 12,
    elevations: Annotated[
        list[float] | None,
        typer.Option(
            metavar="DEGREES",
            help="Height above that of the first picture's camera (repeatable).",
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
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the mesh, the cameras and the pictures as one page for any browser to this .html "
            "file.",
            show_default=False,
        ),
    ] = None,
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
    resolution: Annotated[
        int,
        typer.Option(
            min=64,
            max=1024,
            help="Pixels along one side of new views and of the pictures that give detail to them and to "
            "the mesh. Views of 64 are those of the embedded prior, which need no surface.",
            metavar="64|256|512",
        ),
    ] = 256,
    steps: Annotated[int, typer.Option(min=2, help="Diffusion steps.")] = 50,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    overwrite: option.Overwrite = False,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Find the camera poses of a few pictures of an object, and show it from all sides.

    The object is cut out, centred and scaled (pictures of one width and height by a common factor), and then
    moved and scaled to its middle as the prior estimates it; with several pictures the search corrects this
    estimate. Writes poses.json (polar angle, azimuth and radius relative to the first picture, with a
    confidence and other poses that may be right, as of a symmetric object), the new views as view_*.png and
    turntable.gif, figure.png and report.json; with --mesh or --html also a surface that fits all views. With a
    single picture, the views are those of the prior.

    Exit status: 0; 1 after an error; 2 for wrong options; 3 if the pictures leave the pose of one undecided,
    with everything written; 130 if interrupted.
    """
    console.set_verbosity(quiet, verbose)
    from ..io.files import make_folder
    from ..three_d import reconstruct
    from ..three_d.checkpoint import ViewCheckpoint
    from ..three_d.mesh.solid import check_mesh
    from ..three_d.output.files import ViewOutputs
    from ..three_d.output.page import check_page_name
    from ..three_d.output.video import check_video

    asked = mesh is not None or html is not None
    solid = asked or resolution > PRIOR_SIZE
    if solid:
        try:
            check_mesh(surface.value, mesh)
        except UserError as error:
            if asked:
                raise
            raise UserError(f"{error} Views without it have --resolution {PRIOR_SIZE}.") from None
    if html is not None:
        check_page_name(html)
    if video is not None:
        check_video(video)
    heights = elevations or [0.0]
    images = expand(images)
    out = out or images[0].with_name(f"{images[0].stem}_views")
    make_folder(out)
    files, names = ViewOutputs(out, azimuths * len(heights), mesh, video, html), [str(path) for path in images]
    resumed = checkpoint is not None and checkpoint.is_dir()
    check_outputs(files.paths, images, Existing(overwrite or resumed))
    total = 1.0 + SURFACE_SHARE if solid else 1.0
    run = None if checkpoint is None else ViewCheckpoint(checkpoint)
    written, failure = False, None
    try:
        with console.progress_bar() as advance:
            result = reconstruct(
                images,
                prior=prior,
                cutout=cutout,
                resolution=resolution,
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
            if asked or resolution > result.views.shape[-1]:  # the views of some priors have more pixels
                fitted = result.solid(
                    surface.value,
                    lambda phase, done, steps: advance(phase, 1 + SURFACE_SHARE * done / steps, total),
                )
                result = result.detailed(fitted, resolution)
                files.write(result, names)
                files.write_solid(fitted, result, names)
    except KeyboardInterrupt:
        if not written and run is None:
            raise
        resumable = f"the run is kept in {checkpoint}, and the same command resumes it"
        console.say_error(
            f"Interrupted; {resumable if run else f'the views are in {out} as the prior made them'}."
        )
        raise typer.Exit(INTERRUPTED) from None
    except UserError as error:
        if not written:
            raise
        failure = f"{error} The views are written as the prior made them, a mesh is not."
    if run is not None:
        run.remove()
    written_to = [out, *(path for path in (mesh, html) if path is not None and failure is None)]
    rows = [("written to", " and ".join(map(str, written_to)))]
    for i, (path, pose, confidence, picture) in enumerate(
        zip(images, result.poses, result.confidence, result.pictures, strict=True)
    ):
        text = f"{_angles(pose)}, confidence {float(confidence):.2f}"
        for other, probability in result.other_poses(i, LIKELY):
            text += f"; or {_angles(other)} ({probability:.2f})"
        rows.append((path.name, text + _remark(picture)))
    if len(images) == 1:
        rows.append(("note", "one picture has no pose to find, and its back is the prior's guess"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    console.print_table(rows)
    if failure is not None:
        console.say_error(failure)
        raise typer.Exit(FAILED)
    undecided = [path.name for path, sure in zip(images, result.confidence, strict=True) if sure < UNDECIDED]
    if undecided:
        console.say_error(
            f"The pictures do not decide where {', '.join(undecided)} was taken from (or it shows another "
            "object); add pictures from sides between, and look at "
            f"{out / 'figure.png'} before you use the result."
        )
        raise typer.Exit(UNEXPLAINED)


def _angles(pose: Tensor) -> str:
    polar, azimuth, _ = pose.rad2deg().tolist()
    return f"azimuth {azimuth:.1f}, polar {polar:.1f}"


def _remark(picture: Picture) -> str:
    """What to say about the way a picture was cut out."""
    if not picture.cut:
        return "; no plain background, so taken as a whole (with opencv-python-headless it would be cut out)"
    if not picture.sure:
        return "; the cut-out is unsure: look at figure.png, or give masks with --cutout"
    return "; cut out by GrabCut" if picture.how == "grabcut" else ""
