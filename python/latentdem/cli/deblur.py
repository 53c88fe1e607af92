"""`latentdem deblur`: restore photographs and find what blurred them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import UserError
from . import _console as console
from . import _options as option
from ._devices import own_device, shared_prior
from ._jobs import Job, check_readable, expand
from ._outputs import Existing
from ._run import run
from ._status import UNEXPLAINED
from ._task import Outcome, Outputs, boundary_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..io.images import ImageFile
    from ..metrics import ImageMetrics
    from ..output.result import Result
    from ..restoration.settings import BoundaryChoice, Settings
    from ..solver.passes import Progress


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
            help="How much time the restoration takes once the kernel is known; 'auto' is 'best' for small "
            "photographs and 'balanced' for those that are restored in tiles."
        ),
    ] = option.QualityName.auto,
    blur: Annotated[
        option.BlurName,
        typer.Option(
            help="One kernel for the photograph, or kernels that differ from place to place because the camera "
            "turned."
        ),
    ] = option.BlurName.uniform,
    seed: option.Seed = 0,
    device: option.Device = option.AUTO,
    precision: option.Precision = option.PrecisionName.auto,
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
    quiet: option.Quiet = False,
    verbose: option.Verbose = 0,
) -> None:
    """Restore blurred photographs and find their blur kernels.

    Writes the restored photograph, in size and format of IMAGE; those of a folder go to DIR_deblurred. With
    --extras also the kernel as *_kernel.png and *_kernel.npy, a figure of the run as *_figure.png and a report
    as *_report.json; with --uncertainty there too *_uncertainty.png and *_uncertainty.npy, and with --blur
    varying the kernels of 5 x 5 places as *_kernels.npy. A result that exists is never replaced unless told so.
    Under torchrun the processes share the photographs.

    Exit status: 0; 1 after an error; 2 for wrong options; 3 if no kernel was found that explains a photograph;
    4 if some of several photographs could not be restored; 130 if interrupted.
    """
    console.set_verbosity(quiet, verbose)
    images = expand(images)
    check_readable(images)
    if uncertainty:
        _check_uncertainty(extras, checkpoint, e_step)
    single = {"reference": reference, "checkpoint": checkpoint}
    if len(images) > 1 or images[0].is_dir():
        for name, value in single.items():
            if value is not None:
                raise UserError(f"--{name} belongs to one photograph; leave it out, or give one IMAGE.")

    from ..io.kernels import read_kernel
    from ..restoration.settings import UNCERTAINTY_SAMPLES, Settings

    size = None if kernel_size == option.AUTO else kernel_size
    task = _Deblurring(
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
        ),
        None if kernel is None else read_kernel(kernel),
        prior,
        device,
        precision.value,
        unexplained.value,
        batch_size,
        [path for path in (kernel, reference) if path],
        checkpoint,
        reference,
    )
    existing = Existing(overwrite, skip_existing)
    run(images, task, Outputs(out, output_format and output_format.suffix, existing, extras, json))


@dataclass
class _Deblurring:
    """See `Task`."""

    settings: Settings
    kernel: Tensor | None
    prior: str
    device: str
    precision: str
    unexplained: Literal["input", "result"]
    batch_size: int
    inputs: Sequence[Path]
    kept: Path | None
    reference: Path | None
    ending: str = "_deblurred"
    _loaded: Any = field(default=None, init=False)

    def prepare(self, count: int) -> None:
        self.device = own_device(self.device)
        self._loaded = shared_prior(self.prior, self.device, self.precision, count)

    def group(self, source: ImageFile) -> tuple[Hashable, BoundaryChoice]:
        return source.pixels.shape, boundary_of(source, self.settings.boundary, self.batch_size)

    def restore(
        self, sources: list[ImageFile], group: tuple[Hashable, BoundaryChoice], progress: Progress
    ) -> list[Outcome]:
        import torch

        import latentdem

        sharp = None if self.reference is None else _read_reference(self.reference, sources[0])
        mask = None
        if any(source.opaque is not None for source in sources):
            masks = [source.opaque for source in sources]
            everywhere = torch.ones_like(sources[0].pixels[:, :1])
            mask = torch.cat([everywhere if each is None else each for each in masks])
        result = latentdem.deblur(
            torch.cat([source.pixels for source in sources]),
            kernel=self.kernel,
            mask=mask,
            prior=self._loaded,
            device=self.device,
            precision=self.precision,
            progress=progress,
            checkpoint=self.kept,
            **vars(replace(self.settings, boundary=group[1])),
        )
        return [self._outcome(result[i], source, sharp) for i, source in enumerate(sources)]

    def _outcome(self, result: Result, source: ImageFile, sharp: ImageFile | None) -> Outcome:
        import numpy as np

        from ..io.kernels import write_kernel
        from ..metrics import image_metrics
        from ..output.figures import save_figure
        from ..output.pictures import write_uncertainty
        from ..output.report import build_report

        explained = bool(result.explained[0])
        if self.unexplained == "input":
            result = result.or_input()
        after = before = None
        if sharp is not None:
            after = image_metrics(result.tensor, sharp.pixels)
            before = image_metrics(source.pixels, sharp.pixels)
        result.settings["prior"] = self.prior
        report = build_report(result, image=after, blurred=before)
        extras: dict[str, Any] = {"_figure.png": lambda path: save_figure(result.plot(), path)}
        refused = self.kernel is None and not explained
        report["written"] = self.unexplained if refused else "result"
        if self.kernel is None:
            extras["_kernel.npy"] = lambda path: write_kernel(path.with_suffix(""), result.kernel)
        if (field := result.kernel_field) is not None:
            extras["_kernels.npy"] = lambda path: np.save(path, field[0].numpy())
        spread, kernel_spread = result.uncertainty, result.kernel_uncertainty
        if spread is not None:
            extras["_uncertainty.npy"] = lambda path: write_uncertainty(path.with_suffix(""), spread)
        if kernel_spread is not None:
            extras["_kernel_uncertainty.npy"] = lambda path: np.save(path, kernel_spread[0, 0].numpy())
        return Outcome(result.tensor, source, report, _rows(result, before, after), extras, explained)

    def complaint(self, unexplained: Sequence[Job], several: bool) -> tuple[str, int]:
        names = ", ".join(job.name for job in unexplained)
        if self.kernel is not None:
            which = f" ({names})" if several else ""
            sentence = (
                f"The kernel does not explain the picture{which}: the residual is far above the noise; check "
                "--noise-sigma and that the kernel belongs to the picture and is not turned."
            )
            return sentence, 0
        as_it_was = self.unexplained == "input"
        if several:
            written = "written as they were" if as_it_was else "probably wrong"
            remedy = "try another --kernel-size or --seed for these"
            remedy += ", or --unexplained result for the restorations." if as_it_was else "."
            return f"Not explained by any kernel found and {written}: {names}; {remedy}", UNEXPLAINED
        target = unexplained[0].target or "the result"
        written = "the picture as it was" if as_it_was else "probably wrong"
        anyway = "; --unexplained result writes the restoration all the same" if as_it_was else ""
        turned = ", --blur varying if the camera turned" if self.settings.blur == "uniform" else ""
        sentence = (
            "No kernel was found that explains the picture better than leaving it alone, so "
            f"{target} is {written}; try another --kernel-size or --seed{turned}, or a part of the picture "
            f"with clear edges{anyway}."
        )
        return sentence, UNEXPLAINED


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


def _rows(result: Result, before: ImageMetrics | None, after: ImageMetrics | None) -> list[tuple[str, str]]:
    rows = [("noise sigma", f"{float(result.noise_sigma[0]):.4f}")]
    if result.model_error is not None:
        rows.append(("model error", f"{float(result.model_error[0]):.4f}"))
    rows.append(("residual", f"{float(result.residual[0]):.4f}"))
    if result.mean_uncertainty is not None:
        rows.append(("uncertainty", f"{float(result.mean_uncertainty[0]):.4f}"))
    rows.append(("seconds", f"{result.seconds['total']:.1f}"))
    if before is not None and after is not None:
        rows.append(
            ("PSNR", f"{after.psnr:.2f} dB, aligned {after.psnr_aligned:.2f} dB, input {before.psnr:.2f} dB")
        )
        rows.append(("SSIM", f"{after.ssim:.3f}, aligned {after.ssim_aligned:.3f}, input {before.ssim:.3f}"))
        if after.lpips is not None and before.lpips is not None:
            rows.append(("LPIPS", f"{after.lpips:.3f}, input {before.lpips:.3f}"))
    return rows
