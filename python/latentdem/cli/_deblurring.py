"""What `latentdem deblur` does with photographs: restores them, and says what it found."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from ._devices import own_device, shared_prior
from ._jobs import Job
from ._status import UNEXPLAINED
from ._task import Outcome, boundary_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..io.images import ImageFile
    from ..metrics import ImageMetrics
    from ..output.result import Result
    from ..restoration.settings import BoundaryChoice, Settings
    from ..solver.passes import Progress

_DOT = 0.4  # of a kernel in one pixel: with as much, the picture is hardly sharper than it was


@dataclass
class Deblurring:
    """The `Task` of `latentdem deblur`.

    Attributes:
        settings: of every restoration.
        kernel: the kernel of all photographs, (1, 1, K, K); None where it is unknown.
        prior: name of the prior.
        device: where to compute.
        precision: what the networks of the prior compute in.
        cuda_graph, compile: see `latentdem.deblur`.
        unexplained: what to write where no kernel found explains a photograph.
        batch_size, inputs, kept, ending: see `Task`.
        reference: the sharp image of a single photograph.
    """

    settings: Settings
    kernel: Tensor | None
    prior: str
    device: str
    precision: str
    cuda_graph: bool
    compile: bool
    unexplained: Literal["input", "result"]
    batch_size: int
    inputs: Sequence[Path]
    kept: Path | None
    reference: Path | None
    ending: str = "_deblurred"
    _loaded: Any = field(default=None, init=False)
    _first: ImageFile | None = field(default=None, init=False)

    def prepare(self, count: int) -> None:
        if self.settings.same_kernel:
            self.batch_size = count
        self.device = own_device(self.device)
        self._loaded = shared_prior(self.prior, self.device, self.precision, count, self.compile)

    def group(self, source: ImageFile) -> tuple[Hashable, BoundaryChoice]:
        if self.settings.same_kernel:
            self._first = self._first or source
            if source.pixels.shape != self._first.pixels.shape:
                raise UserError(
                    f"With --same-kernel all photographs are of one size and kind: {self._first.path} is "
                    f"{_shape(self._first)} and {source.path} {_shape(source)}."
                )
            return source.pixels.shape, boundary_of(self._first, self.settings.boundary, self.batch_size)
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
        pixels = [source.pixels for source in sources]
        result = latentdem.deblur(
            torch.cat(pixels) if len(pixels) > 1 else pixels[0],
            kernel=self.kernel,
            mask=mask,
            prior=self._loaded,
            device=self.device,
            precision=self.precision,
            cuda_graph=self.cuda_graph,
            compile=self.compile,
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
        if explained and result.coverage is not None and float(result.kernel.max()) >= _DOT:
            warnings.warn(
                f"The kernel found for {source.path} hardly blurs, so the result is nearly the picture as it "
                "was; if that is blurred, try a --kernel-size that is at least as wide as the blur.",
                UserWarning,
                stacklevel=2,
            )
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
