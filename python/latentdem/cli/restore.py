"""`latentdem restore`: restore one image that any operator has measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..api.registry import listing
from . import _common as common
from .deblur import BoundaryName

OPERATOR_HELP = "What happened to the image, by name, with what is known of it; the names stand below."


def restore_command(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The measured image.", show_default=False)],
    operator: Annotated[
        str, typer.Option(metavar="NAME[:PARAMETER=VALUE,...]", help=OPERATOR_HELP, show_default=False)
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="File or folder of the result.", show_default="IMAGE_restored here"),
    ] = None,
    noise_sigma: common.NoiseSigma = None,
    prior: common.Prior = "embedded",
    steps: common.Steps = None,
    seed: common.Seed = 0,
    device: common.Device = common.DeviceName.auto,
    boundary: Annotated[
        BoundaryName, typer.Option(help="Of operators with one kernel, as of deblur; the others wrap around.")
    ] = BoundaryName.auto,
    json: common.Json = None,
    figure: common.Figure = True,
) -> None:
    """Restore an image, and the unknown parameters of what happened to it.

    Writes the restored image, a figure of the run as *_figure.png, and parameters that are kernels or masks
    as *_NAME.npy.
    """
    import latentdem

    from ..api.registry import completed, parse
    from ..io.files import write_json
    from ..io.images import check_output, read_image
    from ..output.files import RestoredOutputs
    from ..output.report import build_restored_report

    name, values = parse(operator)
    completed(name, values)
    source = read_image(image)
    target = common.output_path(out, f"{image.stem}_restored{source.suffix}")
    check_output(target)
    files = RestoredOutputs(target, figure)
    inputs = [image, *(value for value in values.values() if isinstance(value, Path))]
    common.check_outputs([*files.paths, *([json] if json else [])], inputs)
    with common.progress_bar() as advance:
        result = latentdem.restore(
            source.pixels,
            operator,
            noise_sigma=noise_sigma,
            prior=prior,
            steps=steps,
            seed=seed,
            device=device.value,
            boundary=boundary.value,
            progress=advance,
        )
    written = files.write(result, source)
    if json is not None:
        write_json(json, build_restored_report(result))
    written += [json] if json else []
    rows = [("written" if i == 0 else "", str(path)) for i, path in enumerate(written)]
    rows += [(key, f"{float(v):.4g}") for key, v in result.parameters.items() if v.numel() == 1]
    rows.append(("noise sigma", f"{float(result.noise_sigma[0]):.4f}"))
    rows.append(("residual", f"{float(result.residual[0]):.4f}"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    common.print_table(rows)


EPILOG = "Operators:\n\n" + "\n\n".join(listing())
