"""Results of a restoration: image, kernel or parameters, and the record of the run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..operators.kernels import delta_kernel
from ..solver.state import TraceStep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Above these something is wrong (docs/research/deblurring.md): the residual in units of the noise, where the
# kernel was not tried; and what a tried kernel leaves unexplained, without and with clipped areas in the input.
UNEXPLAINED = 2.0
UNEXPLAINED_SHARE, UNEXPLAINED_CLIPPED = 0.1, 0.2
_CLIPPED = 0.005  # share of the pixels within 1 % of black or white from which an input has clipped areas


@dataclass
class Restored:
    """An image restored with any operator, by `latentdem.restore`.

    Attributes:
        image: (B, C, H, W) in [-1, 1], on the CPU.
        parameters: (B, *shape) each, by name: estimated or given.
        measured: (B, C, h, w) the measurement, in [-1, 1].
        noise_sigma: (B,) standard deviation of the measurement noise that was used, in units of [-1, 1].
        residual: (B,) root mean square of y - A(x) for the final image, over the measured entries.
        trace: full EM steps of the run that led to the parameters, or to the image if they are known.
        seconds: wall-clock seconds by phase.
        settings: everything needed to repeat the run.
    """

    image: Tensor
    parameters: dict[str, Tensor]
    measured: Tensor
    noise_sigma: Tensor
    residual: Tensor
    trace: list[TraceStep]
    seconds: dict[str, float]
    settings: dict[str, Any]

    def plot(self) -> Figure:
        """Figure of the first image: input, result, and the residual over the steps."""
        from .figures import plot_restored

        return plot_restored(self)


@dataclass
class Result:
    """A restored batch of blurred images, by `latentdem.deblur`.

    Attributes:
        image: (B, C, H, W) restored images in [-1, 1], on the CPU.
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
    """

    image: Tensor
    kernel: Tensor
    blurred: Tensor
    noise_sigma: Tensor
    residual: Tensor
    trace: list[TraceStep] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    model_error: Tensor | None = None
    unexplained: Tensor | None = None

    def __getitem__(self, index: int) -> Result:
        """The result of one image of the batch, with a batch dimension of 1."""
        pick = slice(index, index + 1)
        trace = [TraceStep(s.stage, s.t, s.residual[pick], s.parameters[pick]) for s in self.trace]
        return Result(
            self.image[pick],
            self.kernel[pick],
            self.blurred[pick],
            self.noise_sigma[pick],
            self.residual[pick],
            trace,
            self.seconds,
            self.settings,
            None if self.model_error is None else self.model_error[pick],
            None if self.unexplained is None else self.unexplained[pick],
        )

    def __len__(self) -> int:
        return self.image.shape[0]

    def plot(self, index: int = 0) -> Figure:
        """Figure of image `index`: input, result, kernel, and kernel and residual over the steps."""
        from .figures import plot_result

        return plot_result(self[index])

    @property
    def explained(self) -> Tensor:
        """(B,) bool, False where the kernel is probably wrong, so that leaving the image alone is better.

        That is where `unexplained` is above 0.1 (0.2 if 0.5 % of the input are black or white), or without it,
        where the residual is above twice the noise.
        """
        if self.unexplained is None:
            return self.residual <= UNEXPLAINED * self.noise_sigma
        clipped = (self.blurred.abs() > 0.98).flatten(1).float().mean(1) > _CLIPPED
        return self.unexplained <= torch.where(clipped, UNEXPLAINED_CLIPPED, UNEXPLAINED_SHARE)

    def or_input(self) -> Result:
        """The result with the input and a kernel without blur where an estimated kernel explains nothing.

        A known kernel is never refused. All else stays as it is, `explained` too.
        """
        if self.settings.get("kernel_known") or bool(self.explained.all()):
            return self
        explained = self.explained[:, None, None, None]
        image = torch.where(explained, self.image, self.blurred)
        kernel = torch.where(explained, self.kernel, delta_kernel(self.kernel.shape[-1]))
        return replace(self, image=image, kernel=kernel)

    @property
    def finite(self) -> bool:
        """Whether every pixel and every kernel value is a finite number."""
        return bool(torch.isfinite(self.image).all() and torch.isfinite(self.kernel).all())
