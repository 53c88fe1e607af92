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
from ..solver.state import TraceStep, on_host
from .cases import Method, Task
from .methods import networks

_WIDTH = 0.15  # standard deviation of GibbsDDRM's first Gaussian kernel in units of K


@dataclass(frozen=True)
class BlindDPSRival:
    """BlindDPS with the prior of the evaluation and a diffusion prior of kernels, in 1000 steps by default.

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
        sample = partial(self.method, prior, kernels, kernel_size=task.settings.kernel_size)
        return _run(task, sample, task.settings.steps or 1000)


@dataclass(frozen=True)
class GibbsDDRMRival:
    """GibbsDDRM with the prior of the evaluation, from a Gaussian kernel, in 100 steps by default.

    A measurement that does not wrap around is made to: with a frame that is filled by predictions, as in the
    authors' release, the steps at its edges become crosses in the kernel.

    Attributes:
        method: see `GibbsDDRM`.
    """

    method: GibbsDDRM = field(default_factory=GibbsDDRM)

    def __call__(self, task: Task) -> Result:
        prior, _ = networks(task.settings.prior, task.device)
        size = task.settings.kernel_size
        first = gaussian_kernel(size, _WIDTH * size).to(task.device)
        sample = partial(self.method, prior, kernel=first.repeat(len(task.blurred), 1, 1, 1))
        return _run(task, sample, task.settings.steps or 100, wrap=True)


RIVALS: dict[str, Method] = {
    "blinddps": BlindDPSRival(),
    "blinddps-denoiser": BlindDPSRival(approximate=True),
    "gibbsddrm": GibbsDDRMRival(),
}
"""The rivals by the names that `--methods` has for them."""


def _run(task: Task, sample: Callable[..., tuple[Tensor, Tensor]], steps: int, wrap: bool = False) -> Result:
    """The result of a sampler, which runs on a padded grid where the blur does not wrap around.

    What is beyond the frame is unknown there, or, to `wrap`, leads from one side to the other.
    """
    started, settings, y = perf_counter(), task.settings, task.blurred
    sigma = torch.full((len(y),), settings.noise_sigma)
    if settings.estimate_noise:
        sigma = estimate_noise_sigma(y)
    circular, (height, width) = settings.boundary == "circular", y.shape[-2:]
    frame = Frame.circular(height, width) if circular else Frame.extended(height, width, settings.kernel_size)
    measured = Measurement(to_rgb(y), sigma, circular=circular)
    measurement = (frame.wrap if wrap else frame.extend)(measured).to(task.device)
    trace: list[TraceStep] = []
    count = len(timesteps(steps))

    def record(step: TraceStep) -> None:
        trace.append(step)
        task.progress(step.stage, len(trace), count)

    generator = torch.Generator(task.device).manual_seed(settings.seed)
    image, kernel = sample(measurement=measurement, generator=generator, steps=steps, on_step=record)
    image = image.clamp(-1, 1)
    residual = Blur(kernel.shape[-1], mask=frame.mask(task.device)).residual(image, kernel, measurement.y)
    return Result(
        from_rgb(frame.crop(image), y.shape[1]).cpu(),
        kernel.cpu(),
        y,
        sigma,
        residual.cpu(),
        on_host(trace),
        {"total": perf_counter() - started},
    )
