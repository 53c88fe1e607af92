"""`latentdem deblur`: restore photographs and find what blurred them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._cluster import ray_engine
from ._deblurring import Deblurring
from ._jobs import check_readable, expand
from ._outputs import Existing
from ._run import run
from ._task import Outputs


def deblur_command(
    images: option.Pictures,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR|-",
            help="File or folder of the result; '-' is standard output.",
            show_default="IMAGE_deblurred beside IMAGE",
        ),
    ] = None,
    kernel_size: option.UnknownKernelSize = option.AUTO,
    noise_sigma: option.NoiseSigma = None,
    prior: option.Prior = "embedded",
    e_step: option.EStep = option.EStepName.proximal,
    steps: option.StepsOfEStep = None,
    quality: Annotated[
        option.QualityName,
        typer.Option(
            help="How the image is restored once the kernel is found. 'fast': 3 steps, for a first look; on "
            "two cores, 12 megapixels take 3 minutes, search included. 'balanced': 8 steps; 6 minutes. "
            "'best': the mean of 4 runs of 13 steps; more than half an hour. 'auto': 'best' up to about 350 "
            "pixels a side, and 'balanced' above."
        ),
    ] = option.QualityName.auto,
    blur: Annotated[
        option.BlurName,
        typer.Option(
            help="One kernel for the photograph, or kernels that differ from place to place because the camera "
            "turned."
        ),
    ] = option.BlurName.uniform,
    same_kernel: Annotated[
        bool,
        typer.Option(
            "--same-kernel",
            help="The photographs, two or more of one size, have one blur: find one kernel from all of them.",
        ),
    ] = False,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    precision: option.Precision = option.PrecisionName.auto,
    cuda_graph: option.CudaGraph = True,
    compile: option.Compile = False,
    boundary: option.Boundary = option.BoundaryName.auto,
    gamma: option.Gamma = 1.0,
    kernel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The kernel, where it is known: .npy, .npz, text, TIFF or a picture.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The sharp image, to measure one result with.", show_default=False),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also write the standard deviation of each pixel's error to the folder of --extras. Tiles and "
            "blind searches then take up to four times as long.",
        ),
    ] = False,
    unexplained: Annotated[
        option.UnexplainedName,
        typer.Option(
            help="What to write where no kernel found explains the picture: the picture as it was, or the "
            "result all the same."
        ),
    ] = option.UnexplainedName.input,
    output_format: option.Format = None,
    overwrite: option.Overwrite = False,
    skip_existing: option.SkipExisting = False,
    extras: option.Extras = None,
    json: option.Json = None,
    batch_size: option.BatchSize = 1,
    checkpoint: option.Checkpoint = None,
    engine: option.Engine = option.EngineName.plain,
    address: option.Address = None,
    cores: option.Cores = None,
    parquet: option.Parquet = None,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Restore blurred photographs and find their blur kernels.

    Writes the restored photograph, in size and format of IMAGE; those of a folder go to DIR_deblurred. With
    --extras also the kernel as *_kernel.png and *_kernel.npy, a figure of the run as *_figure.png and a report
    as *_report.json; with --uncertainty there too *_uncertainty.png and *_uncertainty.npy, and with --blur
    varying the kernels of 5 x 5 places as *_kernels.npy. A result that exists is never replaced unless told so.
    Under torchrun the processes share the photographs, and with --engine ray those of a Ray cluster do.

    Exit status: 0; 1 after an error; 2 for wrong options; 3 if no kernel was found that explains a photograph;
    4 if some of several photographs could not be restored; 130 if interrupted.
    """
    console.set_verbosity(quiet, verbose)
    on_ray = ray_engine(engine is option.EngineName.ray, address, cores, parquet, device)
    images = expand(images)
    check_readable(images)
    if uncertainty:
        _check_uncertainty(extras, checkpoint, e_step)
    if same_kernel:
        _check_same_kernel(images, on_ray is not None, skip_existing)
    if on_ray is not None and checkpoint is not None:
        raise UserError("--engine ray continues with --skip-existing; leave out --checkpoint.")
    single = {"reference": reference, "checkpoint": checkpoint}
    if len(images) > 1 or images[0].is_dir():
        for name, value in single.items():
            if value is not None:
                raise UserError(f"--{name} belongs to one photograph; leave it out, or give one IMAGE.")

    from ..io.kernels import read_kernel
    from ..restoration.settings import UNCERTAINTY_SAMPLES, Settings

    size = None if kernel_size == option.AUTO else kernel_size
    task = Deblurring(
        Settings(
            size,
            noise_sigma,
            e_step.value,
            steps=steps,
            seed=seed,
            boundary=boundary.value,
            quality=quality.value,
            blur=blur.value,
            num_samples=UNCERTAINTY_SAMPLES if uncertainty else 1,
            gamma=gamma,
            same_kernel=same_kernel,
        ),
        None if kernel is None else read_kernel(kernel),
        prior,
        device,
        precision.value,
        cuda_graph,
        compile,
        unexplained.value,
        batch_size,
        [path for path in (kernel, reference) if path],
        checkpoint,
        reference,
    )
    existing = Existing(overwrite, skip_existing)
    outputs = Outputs(out, output_format and output_format.suffix, existing, extras, json)
    run(images, task, outputs, on_ray)


def _check_same_kernel(images: list[Path], on_ray: bool, skip_existing: bool) -> None:
    """Refuses what would find the common kernel from a part of the photographs.

    Raises:
        UserError: there is one photograph only, or several processes or runs share them.
    """
    if on_ray or "WORLD_SIZE" in os.environ:
        where = "--engine ray" if on_ray else "torchrun"
        raise UserError(f"--same-kernel restores all photographs in one process; leave out {where}.")
    if len(images) == 1 and not images[0].is_dir():
        raise UserError("--same-kernel is for several photographs; give two or more, or leave it out.")
    if skip_existing:
        raise UserError(
            "--same-kernel finds one kernel from all photographs, and with --skip-existing some are left out; "
            "give --overwrite, or another folder with -o."
        )


def _check_uncertainty(extras: Path | None, checkpoint: Path | None, e_step: option.EStepName) -> None:
    """Refuses --uncertainty where there would be none, or nowhere to write it.

    Raises:
        UserError: says what is in the way.
    """
    if extras is None:
        raise UserError("--uncertainty is written to the folder of --extras; add --extras DIR.")
    if checkpoint is not None:
        raise UserError("A resumed run has no --uncertainty; leave out --checkpoint or --uncertainty.")
    if e_step is not option.EStepName.proximal:
        raise UserError("--uncertainty is calibrated for the proximal E-step alone; leave out --e-step.")
