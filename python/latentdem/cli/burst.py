"""`latentdem burst`: restore one photograph from several of the same scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._devices import own_device
from ._jobs import STANDARD, Job, expand
from ._outputs import Existing
from ._run import run
from ._task import Outcome, Outputs

if TYPE_CHECKING:
    from ..io.images import ImageFile
    from ..output.result import Restored
    from ..solver.passes import Progress


def burst_command(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Two photographs or more of one scene and of one size, or patterns such as 'scene/*.jpg'.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR|-",
            help="File of the result, or its folder; '-' is standard output.",
            show_default="IMAGE_burst beside the first IMAGE",
        ),
    ] = None,
    kernel_size: option.UnknownKernelSize = option.AUTO,
    noise_sigma: option.NoiseSigma = None,
    prior: option.Prior = "embedded",
    quality: Annotated[
        option.QualityName,
        typer.Option(help="How much time the restoration takes once the kernels are known, as of deblur."),
    ] = option.QualityName.auto,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    precision: option.Precision = option.PrecisionName.auto,
    output_format: option.Format = None,
    overwrite: option.Overwrite = False,
    extras: option.Extras = None,
    json: option.Json = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Restore one photograph from several of the same scene, each with a blur of its own.

    The photographs may be shifted and turned a little against each other, and must have the same exposure;
    nothing may move in the scene. Each gets a kernel, and those that none explains are left out. The result
    shows the scene as the one with the narrowest blur does, the first of the summary. With --extras also the
    kernels as *_kernels.npy, a figure of the run as *_figure.png and a report as *_report.json.

    Exit status: 0; 1 after an error; 2 for wrong options; 130 if interrupted.
    """
    console.set_verbosity(quiet, verbose)
    images = list(dict.fromkeys(expand(images)))
    for path in images:
        if path.is_dir() or path == STANDARD:
            raise UserError(f"A burst is made of files, and {path} is none; name them, as 'scene/*.jpg'.")
    if len(images) < 2:
        raise UserError("A burst has two photographs or more; restore a single one with latentdem deblur.")
    size = None if kernel_size == option.AUTO else kernel_size
    chosen = {"kernel_size": size, "noise_sigma": noise_sigma, "quality": quality.value, "seed": seed}
    task = _Burst(images, chosen, prior, device, precision.value, images[1:])
    run(
        images[:1],
        task,
        Outputs(out, output_format and output_format.suffix, Existing(overwrite), extras, json),
    )


@dataclass
class _Burst:
    """See `Task`; its one photograph is the first of the burst."""

    images: Sequence[Path]
    chosen: dict[str, Any]
    prior: str
    device: str
    precision: str
    inputs: Sequence[Path]
    kept: Path | None = None
    batch_size: int = 1
    ending: str = "_burst"

    def prepare(self, count: int) -> None:
        self.device = own_device(self.device)

    def group(self, source: ImageFile) -> None:
        return None

    def restore(self, sources: list[ImageFile], group: None, progress: Progress) -> list[Outcome]:
        import latentdem

        result = latentdem.burst(
            self.images,
            prior=self.prior,
            device=self.device,
            precision=self.precision,
            progress=progress,
            **self.chosen,
        )
        return [_outcome(result, self.images)]

    def complaint(self, unexplained: Sequence[Job], several: bool) -> tuple[str, int]:
        raise AssertionError("every result of `burst` counts as explained")


def _outcome(result: Restored, images: Sequence[Path]) -> Outcome:
    import numpy as np

    from ..output.figures import save_figure
    from ..output.report import build_restored_report

    assert result.source is not None
    names = [str(images[number - 1]) for number in result.settings["photographs"]]
    shifts, rotations = (result.parameters[name][0].tolist() for name in ("shift", "rotation"))
    placed = [
        {"photograph": name, "down": shift[0], "right": shift[1], "degrees": rotation}
        for name, shift, rotation in zip(names, shifts, rotations, strict=True)
    ]
    rows = [
        (one["photograph"], "{down:+.2f} down, {right:+.2f} right, {degrees:+.2f} degrees".format(**one))
        for one in placed
    ]
    rows.append(("noise sigma", f"{float(result.noise_sigma[0]):.4f}"))
    rows.append(("residual", f"{float(result.residual[0]):.4f}"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    extras: dict[str, Any] = {
        "_figure.png": lambda path: save_figure(result.plot(), path),
        "_kernels.npy": partial(np.save, arr=result.parameters["kernels"][0].numpy()),
    }
    report = {**build_restored_report(result), "frames": placed}
    return Outcome(result.tensor, result.source.file(0), report, rows, extras)
