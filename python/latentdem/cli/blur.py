"""`latentdem blur`: makes a test case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._outputs import Existing, check_outputs, output_path

Intensity = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Camera motion: 0 is short and straight, 1 long and curved."),
]
AddedNoise = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Standard deviation of the noise, in units of the image range [-1, 1]."
    ),
]
SimulatedBoundary = Annotated[
    option.SimulatedBoundaryName,
    typer.Option(help="'circular' wraps at the frame; 'valid' does not, and crops by K - 1 pixels."),
]


def blur_command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A sharp image.", show_default=False)],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE|DIR",
            help="PNG file or folder of the blurred image.",
            show_default=False,
        ),
    ],
    kernel_size: option.KernelSize = 64,
    intensity: Intensity = 0.5,
    noise_sigma: AddedNoise = 0.02,
    boundary: SimulatedBoundary = option.SimulatedBoundaryName.circular,
    seed: option.Seed = 0,
    overwrite: option.Overwrite = False,
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Make a test case: blur a sharp image and add noise.

    The blur is a random camera motion. Writes a PNG (of 16 bits if IMAGE has 16) and the kernel beside it as
    *_kernel.npy and *_kernel.png; with --boundary valid also *_reference.png, the part of IMAGE that the
    blurred image shows.
    """
    console.set_verbosity(quiet, verbose)
    import numpy as np

    from ..io.files import staging_folder
    from ..io.images import read_image, write_image
    from ..io.kernels import write_kernel
    from ..operators.kernels import motion_kernel
    from ..operators.simulate import blur_and_add_noise

    source = read_image(image)
    target = output_path(out, f"{image.stem}_blurred.png")
    if target.suffix.lower() != ".png":
        raise UserError(f"{target} does not end in .png; a test case is written as PNG, without loss.")
    kernel_stem = target.with_name(f"{target.stem}_kernel")
    reference_path = target.with_name(f"{target.stem}_reference.png")
    outputs = [target, *(kernel_stem.with_name(kernel_stem.name + s) for s in (".png", ".npy"))]
    outputs += [reference_path] if boundary.value == "valid" else []
    check_outputs(outputs, [image], Existing(overwrite))

    generator = np.random.default_rng(seed)
    kernel = motion_kernel(kernel_size, intensity, generator)
    blurred, reference = blur_and_add_noise(source.pixels, kernel, noise_sigma, generator, boundary.value)

    like = replace(source, alpha=None)  # transparency that is not blurred would be wrong
    with staging_folder(target.parent) as stage:
        write_image(stage / target.name, blurred, like=like)
        write_kernel(stage / kernel_stem.name, kernel)
        if reference_path in outputs:
            write_image(stage / reference_path.name, reference, like=like)
    console.print_table([("written" if i == 0 else "", str(path)) for i, path in enumerate(outputs)])
