"""Results of a restoration: image, kernel or parameters, and the record of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ..io.inputs import ImageForm, Source
from ..operators.kernels import delta_kernel
from ..solver.state import TraceStep
from .pictures import Pictures, kernel_thumbnail, thumbnail, uncertainty_thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Above these something is wrong (docs/research/deblurring.md): the residual in units of the noise, where the
# kernel was not tried; and what a tried kernel leaves unexplained.
UNEXPLAINED = 2.0
UNEXPLAINED_SHARE = 0.3
LEAST_COVERAGE = 0.7  # below this an estimated kernel is only a part of the blur
MOST_COVERAGE = 1.4  # above this it is wider than the blur, unless its lead says that it is right
SURE_LEAD = 0.02  # from this lead on an estimated kernel is right, whatever the prior leaves unexplained
MOST_RESIDUAL = 0.1  # of an image that explains anything, in units of [-1, 1], unless the noise is greater
# What a result may have besides, a row for each image.
_OPTIONAL = (
    "model_error",
    "unexplained",
    "coverage",
    "lead",
    "uncertainty",
    "kernel_uncertainty",
    "kernel_field",
)


@dataclass(repr=False)
class Restored(Pictures):
    """Images restored with any operator, by `latentdem.restore`.

    `image` and `images` are in the form that was given; `pil()`, `numpy()` and `save()` give the others.
    `result[i]` is the result of one image, `result[i:j]` of some.

    Attributes:
        tensor: (B, C, H, W) restored images in [-1, 1], on the CPU.
        parameters: (B, *shape) each, by name: estimated or given.
        measured: (B, C, h, w) the measurement, in [-1, 1].
        noise_sigma: (B,) standard deviation of the measurement noise that was used, in units of [-1, 1].
        residual: (B,) root mean square of y - A(x) for the final image, over the measured entries.
        trace: full EM steps of the run that led to the parameters, or to the image if they are known.
        seconds: wall-clock seconds by phase.
        settings: everything needed to repeat the run.
        source: what was given; None for a tensor in [-1, 1].
    """

    tensor: Tensor
    parameters: dict[str, Tensor]
    measured: Tensor
    noise_sigma: Tensor
    residual: Tensor
    trace: list[TraceStep] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    source: Source | None = None

    def __getitem__(self, index: int | slice) -> Restored:
        """The result of one image of the batch, with a batch dimension of 1, or of some."""
        pick, place = _rows_of(index, len(self))
        parameters = {name: value[pick] for name, value in self.parameters.items()}
        return replace(_picked(self, pick, place), parameters=parameters, measured=self.measured[pick])

    def __iter__(self) -> Iterator[Restored]:
        return (self[i] for i in range(len(self)))

    @property
    def images(self) -> list[ImageForm]:
        """The images of the batch, each in the form of `image`."""
        return [one.image for one in self]

    def plot(self) -> Figure:
        """Figure of the first image: input, result, and the residual over the steps."""
        from .figures import plot_restored

        return plot_restored(self)

    def _summary(self) -> str:
        numbers = {name: value[0] for name, value in self.parameters.items() if value[0].numel() == 1}
        words = [f"{name} {float(value):.3g}" for name, value in numbers.items()]
        words.append(f"noise sigma {float(self.noise_sigma[0]):.3g}, residual {float(self.residual[0]):.3g}")
        return ", ".join(words)

    def _shown(self) -> list[tuple[str, Image.Image]]:
        return [("input", thumbnail(self.measured)), ("result", thumbnail(self.tensor))]


@dataclass(repr=False)
class Result(Pictures):
    """Restored blurred images, by `latentdem.deblur`.

    `image` and `images` are in the form that was given; `pil()`, `numpy()` and `save()` give the others.
    `result[i]` is the result of one image, `result[i:j]` of some.

    Attributes:
        tensor: (B, C, H, W) restored images in [-1, 1], on the CPU.
        kernel: (B, 1, K, K) estimated (or given) kernels, non-negative, sum 1, origin at index K // 2.
        blurred: (B, C, H, W) the input, in [-1, 1].
        noise_sigma: (B,) standard deviation of the measurement noise that was used, in the units of [-1, 1].
        residual: (B,) root mean square of y - k * x for the final image, over the measured pixels.
        trace: full EM steps of the run that led to the result, in order.
        seconds: wall-clock seconds by phase.
        settings: everything needed to repeat the run.
        model_error: (B,) standard deviation of what no image explains with the kernel, at least `noise_sigma`,
            in units of [-1, 1]: the sensor's noise, compression, and all that is not the assumed blur.
        unexplained: (B,) what a trial of the estimated kernel leaves unexplained, in units of the contrast of
            the photograph's edges, see `unexplained_share`; None where the kernel is known or was not tried.
        coverage: (B,) radius of the estimated kernel in units of that of the blur at a coarse scale, see
            `restoration.kernel_search.coverage`; None as for `unexplained`.
        lead: (B,) by how much the estimated kernel is better than itself turned by 180 degrees, see
            `turned_lead`; None as for `unexplained`.
        kernel_field: (B, 25, K, K) kernels on a grid of 5 x 5 places, row by row from the first pixel to the
            last, where the blur varies; `kernel` is that of the middle then. None for one kernel.
        source: what was given; None for a tensor in [-1, 1].
        uncertainty: (B, 1, H, W) standard deviation of the error of `tensor`, in units of [-1, 1], from the
            spread of the posterior samples; None unless `num_samples` was above 1, and with a checkpoint. It
            holds for a right kernel: the error of a wrong one is not in it.
        kernel_uncertainty: (B, 1, K, K) standard deviation of the kernels that the posterior samples of the
            image give; None unless it was estimated and `num_samples` above 1. It is not calibrated.
    """

    tensor: Tensor
    kernel: Tensor
    blurred: Tensor
    noise_sigma: Tensor
    residual: Tensor
    trace: list[TraceStep] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    model_error: Tensor | None = None
    unexplained: Tensor | None = None
    coverage: Tensor | None = None
    lead: Tensor | None = None
    source: Source | None = None
    uncertainty: Tensor | None = None
    kernel_uncertainty: Tensor | None = None
    kernel_field: Tensor | None = None

    def __getitem__(self, index: int | slice) -> Result:
        """The result of one image of the batch, with a batch dimension of 1, or of some."""
        pick, place = _rows_of(index, len(self))
        picked = replace(_picked(self, pick, place), kernel=self.kernel[pick], blurred=self.blurred[pick])
        for name in _OPTIONAL:
            if (values := getattr(self, name)) is not None:
                setattr(picked, name, values[pick])
        return picked

    def __iter__(self) -> Iterator[Result]:
        return (self[i] for i in range(len(self)))

    @property
    def images(self) -> list[ImageForm]:
        """The images of the batch, each in the form of `image`."""
        return [one.image for one in self]

    def plot(self, index: int = 0) -> Figure:
        """Figure of image `index`: input, result, kernel, and kernel and residual over the steps.

        Where they are known, it also has the uncertainties of the image and of the kernel.
        """
        from .figures import plot_result

        return plot_result(self[index])

    @property
    def mean_uncertainty(self) -> Tensor | None:
        """(B,) root mean square of `uncertainty`: what the error of the whole image is expected to be."""
        return None if self.uncertainty is None else self.uncertainty.square().mean((1, 2, 3)).sqrt()

    @property
    def explained(self) -> Tensor:
        """(B,) bool, False where the kernel is probably wrong, so that leaving the image alone is better.

        That is where it is only a part of the blur (`coverage` below 0.7). Unless it is clearly better than
        itself turned (`lead` of 0.02), that is also where it is wider than the blur (`coverage` above 1.4), or
        where `unexplained` is above 0.3. Where these are not known, it is where the residual is above twice the
        noise. It is always where the residual is above that and above 0.1: then the image itself explains
        nothing, as that of a prior of something else.
        """
        if self.unexplained is None:
            return self.residual <= UNEXPLAINED * self.noise_sigma
        explained = self.unexplained <= UNEXPLAINED_SHARE
        if self.lead is not None:
            explained = explained | (self.lead >= SURE_LEAD)
        if self.coverage is not None:
            explained = explained & (self.coverage >= LEAST_COVERAGE)
            if self.lead is not None:
                explained = explained & ((self.coverage <= MOST_COVERAGE) | (self.lead >= SURE_LEAD))
        return explained & (self.residual <= (UNEXPLAINED * self.noise_sigma).clamp_min(MOST_RESIDUAL))

    def or_input(self) -> Result:
        """The result with the input and a kernel without blur where an estimated kernel explains nothing.

        A known kernel is never refused. All else stays as it is, `explained` too; only the uncertainties, which
        belong to what was refused, are left out.
        """
        if self.settings.get("kernel_known") or bool(self.explained.all()):
            return self
        explained = self.explained[:, None, None, None]
        tensor = torch.where(explained, self.tensor, self.blurred)
        delta = delta_kernel(self.kernel.shape[-1])
        kernel, field = torch.where(explained, self.kernel, delta), self.kernel_field
        if field is not None:
            field = torch.where(explained, field, delta)
        return replace(
            self, tensor=tensor, kernel=kernel, uncertainty=None, kernel_uncertainty=None, kernel_field=field
        )

    @property
    def finite(self) -> bool:
        """Whether every pixel and every kernel value is a finite number."""
        return bool(torch.isfinite(self.tensor).all() and torch.isfinite(self.kernel).all())

    def _summary(self) -> str:
        size = self.kernel.shape[-1]
        words = f"kernel {size} x {size}"
        if len(self) == 1:
            words += f", noise sigma {float(self.noise_sigma[0]):.3g}, residual {float(self.residual[0]):.3g}"
        unexplained = int((~self.explained).sum())
        if unexplained:
            words += ", not explained" if len(self) == 1 else f", {unexplained} not explained"
        return words

    def _shown(self) -> list[tuple[str, Image.Image]]:
        shown = [
            ("input", thumbnail(self.blurred)),
            ("result", thumbnail(self.tensor)),
            ("kernel", kernel_thumbnail(self.kernel)),
        ]
        if self.uncertainty is not None:
            shown.append(uncertainty_thumbnail(self.uncertainty))
        return shown


_Kind = TypeVar("_Kind", Restored, Result)


def _rows_of(index: int | slice, count: int) -> tuple[slice, int | slice]:
    """The rows of a batch of `count` that an index or slice means, and the index itself, not negative.

    Raises:
        IndexError: there is no such image.
    """
    if isinstance(index, slice):
        return index, index
    if not -count <= index < count:
        raise IndexError(f"no image has the index {index}; their number is {count}")
    place = index % count
    return slice(place, place + 1), place


def _picked(result: _Kind, rows: slice, place: int | slice) -> _Kind:
    """A result with the attributes that all kinds have cut down to `rows`."""
    return replace(
        result,
        tensor=result.tensor[rows],
        noise_sigma=result.noise_sigma[rows],
        residual=result.residual[rows],
        trace=[TraceStep(s.stage, s.t, s.residual[rows], s.parameters[rows]) for s in result.trace],
        source=None if result.source is None else result.source.pick(place),
    )
