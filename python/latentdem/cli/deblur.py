"""`latentdem deblur`: restore one photograph, or those of a folder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from . import _common as common
from ._folder import deblur_folder

if TYPE_CHECKING:
    from ..io.images import ImageFile
    from ..metrics import ImageMetrics
    from ..output.result import Result


_WRITTEN = {"input": "the picture as it was", "result": "probably wrong"}


class BoundaryName(str, Enum):
    """What the blur did at the frame."""

    auto = "auto"
    circular = "circular"
    valid = "valid"


def deblur_command(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE", help="The blurred photograph, or a folder of them.", show_default=False
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="File or folder of the result.", show_default="IMAGE_deblurred here"),
    ] = None,
    kernel_size: common.UnknownKernelSize = common.AUTO,
    noise_sigma: common.NoiseSigma = None,
    prior: common.Prior = "embedded",
    e_step: common.EStep = common.EStepName.proximal,
    steps: common.Steps = None,
    seed: common.Seed = 0,
    device: common.Device = common.DeviceName.auto,
    boundary: Annotated[
        BoundaryName,
        typer.Option(
            help="'valid' for photographs, 'circular' for blur that wraps around, 'auto' looks at the edges."
        ),
    ] = BoundaryName.auto,
    kernel: Annotated[
        Path | None,
        typer.Option(help="The kernel, where it is known: a .npy file or a picture.", show_default=False),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The sharp image, to measure the result with.", show_default=False)
    ] = None,
    json: common.Json = None,
    figure: common.Figure = True,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Save the run of one image in this folder; if interrupted, the same command resumes it.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images of a folder to restore at a time; takes more memory.")
    ] = 1,
    unexplained: Annotated[
        common.UnexplainedName,
        typer.Option(
            help="What to write where no kernel found explains the picture: the picture as it was, or the "
            "result all the same."
        ),
    ] = common.UnexplainedName.result,
) -> None:
    """Restore a blurred photograph and find its blur kernel.

    Writes the restored image (size and format of IMAGE), the kernel as *_kernel.png and *_kernel.npy, and a
    figure of the run as *_figure.png. In a folder every image is restored; if interrupted, the same command
    resumes, and under torchrun the processes share the images.

    Exit status: 0; 1 after an error; 3 if no kernel was found that explains IMAGE; 130 if interrupted.
    """
    import latentdem

    from ..io.files import write_json
    from ..io.images import check_output, read_image
    from ..io.kernels import read_kernel
    from ..metrics import image_metrics
    from ..output.files import Outputs
    from ..output.report import build_report
    from ..restoration.settings import Settings

    known_kernel = None if kernel is None else read_kernel(kernel)
    size = None if kernel_size == common.AUTO else kernel_size
    settings = Settings(size, noise_sigma, e_step.value, steps=steps, seed=seed, boundary=boundary.value)
    if image.is_dir():
        for name, value in (("reference", reference), ("json", json), ("checkpoint", checkpoint)):
            if value is not None:
                raise UserError(f"--{name} belongs to one image and {image} is a folder; leave it out.")
        deblur_folder(
            image, out, settings, known_kernel, prior, device.value, batch_size, figure, unexplained.value
        )
        return
    source = read_image(image)
    sharp = None if reference is None else _read_reference(reference, source)

    target = common.output_path(out, f"{image.stem}_deblurred{source.suffix}")
    check_output(target)
    files = Outputs(target, figure)
    outputs = [*files.paths, *([json] if json else [])]
    common.check_outputs(outputs, [p for p in (image, kernel, reference) if p])

    try:
        with common.progress_bar() as advance:
            result = latentdem.deblur(
                source.pixels,
                kernel=known_kernel,
                mask=source.opaque,
                prior=prior,
                device=device.value,
                progress=advance,
                checkpoint=checkpoint,
                **vars(settings),
            )
    except KeyboardInterrupt:
        if checkpoint is None:
            raise
        common.say_error(f"Interrupted; the run is saved in {checkpoint}, and the same command resumes it.")
        raise typer.Exit(common.INTERRUPTED) from None
    refused = known_kernel is None and not result.explained[0]
    if unexplained.value == "input":
        result = result.or_input()
    after = before = None
    if sharp is not None:
        after, before = image_metrics(result.tensor, sharp.pixels), image_metrics(source.pixels, sharp.pixels)
    report = build_report(result, image=after, blurred=before)
    report["written"] = unexplained.value if refused else "result"
    files.write(result, source)
    if json is not None:
        write_json(json, report)
    common.print_table(_summary(result, outputs, before, after))
    if refused:
        common.say_error(
            "No kernel was found that explains the picture better than leaving it alone, so "
            f"{target} is {_WRITTEN[unexplained.value]}; try another --kernel-size or --seed, or a part of the "
            "picture with clear edges."
        )
        raise typer.Exit(common.UNEXPLAINED)
    if not result.explained[0]:
        common.say_error(
            "The kernel does not explain the picture: the residual is far above the noise; check --noise-sigma "
            "and that the kernel belongs to the picture and is not turned."
        )


def _read_reference(path: Path, source: ImageFile) -> ImageFile:
    from ..io.images import read_image

    reference = read_image(path)
    if reference.pixels.shape != source.pixels.shape:
        raise UserError(
            f"The reference {path} is {_shape(reference)} and the image {source.path} is {_shape(source)}; "
            "both must be of the same size and kind."
        )
    return reference


def _shape(image: ImageFile) -> str:
    channels, height, width = image.pixels.shape[1:]
    return f"{width} x {height} {'grey' if channels == 1 else 'RGB'}"


def _summary(
    result: Result, outputs: list[Path], before: ImageMetrics | None, after: ImageMetrics | None
) -> list[tuple[str, str]]:
    rows = [(("written" if i == 0 else ""), str(path)) for i, path in enumerate(outputs)]
    rows.append(("noise sigma", f"{float(result.noise_sigma[0]):.4f}"))
    if result.model_error is not None:
        rows.append(("model error", f"{float(result.model_error[0]):.4f}"))
    rows.append(("residual", f"{float(result.residual[0]):.4f}"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    if before is not None and after is not None:
        rows.append(
            ("PSNR", f"{after.psnr:.2f} dB, aligned {after.psnr_aligned:.2f} dB, input {before.psnr:.2f} dB")
        )
        rows.append(("SSIM", f"{after.ssim:.3f}, aligned {after.ssim_aligned:.3f}, input {before.ssim:.3f}"))
        if after.lpips is not None and before.lpips is not None:
            rows.append(("LPIPS", f"{after.lpips:.3f}, input {before.lpips:.3f}"))
    return rows
