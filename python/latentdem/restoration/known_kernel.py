"""The restoration of photographs, or tiles of them, with a known kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentdem_ext.vae import Window

from ..operators import Blur
from ..priors.base import LatentPrior
from ..search.camera_poses import KernelField
from ..search.layout import Layout
from ..solver.latentdem import LatentDEM
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, run_passes
from ..solver.state import TraceStep
from .config import KnownKernelConfig


@dataclass
class KnownKernelRestorer:
    """Restores photographs, or tiles of them, with a known kernel.

    Attributes:
        measurement: the whole photographs; kernel: (B, 1, K, K) their kernels.
        trace: the steps of the last call.
        variances: (B,) of every call, of what the model does not explain.
        spread: whether each call gives the spread of the samples too, as three more channels.
        search_operator: makes the operator, given a mask, whose M-step finds the kernel of a sample; None where
            the spread of the kernel is not wanted.
        kernel_spreads: (B, 1, K, K) of every call, where they are wanted.
        varying: the blur of a single photograph where it varies; each call uses the kernel in the middle of its
            window.
        residuals: (B,) of every call, root mean square of y - k * x over the pixels that count.
    """

    prior: LatentPrior
    operator: Callable[..., Blur]
    config: KnownKernelConfig
    seed: int
    layout: Layout
    hooks: Hooks
    latents: Tensor | None
    measurement: Measurement
    kernel: Tensor
    trace: list[TraceStep] = field(default_factory=list)
    variances: list[Tensor] = field(default_factory=list)
    spread: bool = False
    search_operator: Callable[[Tensor | None], Blur] | None = None
    kernel_spreads: list[Tensor] = field(default_factory=list)
    varying: KernelField | None = None
    residuals: list[Tensor] = field(default_factory=list)

    def __call__(self, y: Tensor, window: Window | None) -> Tensor:
        """The image of the pixels `y` (B, 3, h, w) in a window of the photographs; None for the whole."""
        part, frame = self.measurement, self.layout.frame
        if window is not None:
            part, frame = part.window(*window), self.layout.frame_of_part(*y.shape[-2:])
        kernel = self.kernel if self.varying is None or window is None else self.varying.in_window(*window)
        measurement, config = frame.extend(part), self.config
        operator = self.operator(self.layout.kernel_size, mask=measurement.mask, fixed=True)
        operator.find_limits(kernel, measurement.y, measurement.sigma.square())
        solver = LatentDEM(
            self.prior,
            operator,
            config.e_step,
            skip=config.skip,
            num_samples=config.num_samples,
        )
        restored = run_passes(
            solver,
            config.passes,
            measurement,
            kernel,
            torch.Generator(y.device).manual_seed(self.seed),
            consistency=config.consistency,
            latents=self.latents,
            stage="restoration",
            hooks=self.hooks,
            measure_spread=self.spread,
        )
        self.trace = restored.trace
        self.variances.append(restored.variance)
        self.residuals.append(restored.residual)
        if restored.spread is None:
            return frame.crop(restored.image)
        if self.search_operator is not None and solver.samples is not None:
            operator = self.search_operator(measurement.mask)
            kernels = [
                operator.m_step(sample[:, None], measurement.y, kernel, restored.variance)
                for sample in solver.samples.unbind(1)
            ]
            self.kernel_spreads.append(torch.stack(kernels).std(0))
        return frame.crop(torch.cat([restored.image, restored.spread], dim=1))
