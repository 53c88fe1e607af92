"""Blind rivals of the paper as algorithms on our priors: BlindDPS and GibbsDDRM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from ..io.channels import from_rgb, to_rgb
from ..operators.blur import Blur
from ..operators.kernels import gaussian_kernel
from ..output.result import Result
from ..priors.base import LatentPrior
from ..priors.kernel_diffusion import DenoiserPrior, KernelDiffusion
from ..restoration.noise import estimate_noise_sigma
from ..solver.blind_dps import BlindDPS
from ..solver.frame import Frame
from ..solver.gibbs_ddrm import GibbsDDRM
from ..solver.measurement import Measurement
from ..solver.schedules import timesteps
from ..solver.state import TraceStep
from .cases import Task
from .methods import networks

_WIDTH = 0.15  # standard deviation of GibbsDDRM's first Gaussian kernel in units of K


@dataclass(frozen=True)
class BlindDPSRival:
    """BlindDPS with the prior of the evaluation and a diffusion prior of kernels.

    Attributes:
        method: see `BlindDPS`.
        approximate: whether kernels have the score of the kernel denoiser, see `DenoiserPrior`, instead of
            that of the network that ships.
    """

    method: BlindDPS = field(default_factory=BlindDPS)
    approximate: bool = False

    def __call__(self, task: Task) -> Result:
        prior, denoiser = networks(task.settings.prior, task.device)
        kernels: LatentPrior = DenoiserPrior(denoiser)
        if not self.approximate:
            kernels = KernelDiffusion.from_pretrained(None, task.device)
        steps, size = task.settings.steps or 1000, task.settings.kernel_size
        return _run(task, partial(self.method, prior, kernels, kernel_size=size, steps=steps), steps)


@dataclass(frozen=True)
class GibbsDDRMRival:
    """GibbsDDRM with the prior of the evaluation, from a Gaussian kernel.

    Attributes:
        method: see `GibbsDDRM`.
    """

    method: GibbsDDRM = field(default_factory=GibbsDDRM)

    def __call__(self, task: Task) -> Result:
        prior, _ = networks(task.settings.prior, task.device)
        steps, size = task.settings.steps or 100, task.settings.kernel_size
        first = gaussian_kernel(size, _WIDTH * size).to(task.device).repeat(len(task.blurred), 1, 1, 1)
        return _run(task, partial(self.method, prior, kernel=first, steps=steps), steps)


def _run(task: Task, sample: Callable[..., tuple[Tensor, Tensor]], steps: int) -> Result:
    """The result of a sampler for a task, on the padded grid where the blur does not wrap around."""
    started, settings = perf_counter(), task.settings
    y, (height, width) = task.blurred, task.blurred.shape[-2:]
    sigma = torch.full((len(y),), settings.noise_sigma)
    if settings.estimate_noise:
        sigma = estimate_noise_sigma(y)
    circular = settings.boundary == "circular"
    frame = Frame.circular(height, width) if circular else Frame.extended(height, width, settings.kernel_size)
    measurement = frame.extend(Measurement(to_rgb(y), sigma, circular=circular)).to(task.device)
    trace: list[TraceStep] = []
    count = len(timesteps(steps))

    def record(step: TraceStep) -> None:
        trace.append(step)
        task.progress(step.stage, len(trace), count)

    generator = torch.Generator(task.device).manual_seed(settings.seed)
    image, kernel = sample(measurement=measurement, generator=generator, on_step=record)
    image = image.clamp(-1, 1)
    residual = Blur(kernel.shape[-1], mask=measurement.mask).residual(image, kernel, measurement.y)
    return Result(
        from_rgb(frame.crop(image), y.shape[1]).cpu(),
        kernel.cpu(),
        y,
        sigma,
        residual.cpu(),
        trace,
        {"total": perf_counter() - started},
    )
