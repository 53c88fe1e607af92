"""Methods to evaluate: this package's own with any configuration or kernel prior, and classic EM around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor

from ..io.channels import to_rgb
from ..operators.blur import Blur
from ..operators.kernels import gaussian_kernel
from ..output.result import Result
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from ..priors.kernel_diffusion import KernelDiffusion
from ..restoration.config import KnownKernelConfig, RestorationConfig
from ..restoration.image import ImageRestoration
from ..restoration.settings import Settings
from ..search.config import SearchConfig
from ..solver.e_step import Posterior
from ..solver.schedules import EVERY_STEP
from .cases import Method, Task


def deblur_task(task: Task) -> Result:
    """Runs `latentdem.deblur` with the settings of the evaluation."""
    import latentdem

    settings = task.settings
    return latentdem.deblur(
        task.blurred,
        settings.kernel_size,
        kernel=task.kernel if settings.non_blind else None,
        noise_sigma=None if settings.estimate_noise else settings.noise_sigma,
        prior=settings.prior,
        e_step=settings.e_step,
        without=settings.without,
        steps=settings.steps,
        seed=settings.seed,
        device=str(task.device),
        boundary=settings.boundary,
        progress=task.progress,
        value_range=(-1, 1),
    )


@dataclass(frozen=True)
class ConfiguredLatentDEM:
    """This package's method with a configuration, and with the true kernel where the settings are non-blind.

    Attributes:
        config: configuration of search and restoration.
        guess: standard deviation in units of K of a Gaussian kernel that is used instead of a search.
    """

    config: RestorationConfig = field(default_factory=RestorationConfig)
    guess: float | None = None

    def __call__(self, task: Task) -> Result:
        kernel, config = task.kernel if task.settings.non_blind else None, self.config
        if self.guess is not None:
            size = task.kernel.shape[-1]
            kernel = gaussian_kernel(size, self.guess * size)
            config = replace(config, known=config.known.cautious())
        return _run(task, kernel, config)


@dataclass(frozen=True)
class OtherKernelPrior:
    """This package's default method, blind, with another prior of kernels in its M-steps.

    Attributes:
        kernel_prior: "diffusion" for `KernelDiffusion` with the weights that ship, "none" for kernels that are
            only non-negative with sum 1.
    """

    kernel_prior: Literal["diffusion", "none"]

    def __call__(self, task: Task) -> Result:
        denoiser = None
        if self.kernel_prior == "diffusion":
            denoiser = KernelDiffusion.from_pretrained(None, task.device)

        def blur(kernel_size: int, _: Any = None, *settings: Any, **options: Any) -> Blur:
            return Blur(kernel_size, denoiser, *settings, **options)

        return _run(task, None, RestorationConfig(), blur)


@dataclass(frozen=True)
class VanillaEM:
    """Classic expectation-maximisation: each E-step is a whole reverse diffusion with a fixed kernel.

    The first kernel and the M-step are those of this package's search, with one posterior sample.

    Attributes:
        iterations: EM iterations, about 18 in the paper: Table 6 reports 120 minutes, and Table 2 6.55 minutes
            for a whole diffusion without skipping.
    """

    iterations: int = 18

    @torch.no_grad()
    def __call__(self, task: Task) -> Result:
        started = perf_counter()
        denoiser = networks(task.settings.prior, task.device)[1]
        start, size = SearchConfig().starts[0], task.kernel.shape[-1]
        hqs = replace(SearchConfig().coarse[0].hqs, noise_level=start.level)
        operator = Blur(size, denoiser.denoise, hqs)
        kernel = gaussian_kernel(size, start.width * size).repeat(len(task.blurred), 1, 1, 1)
        y = to_rgb(task.blurred).to(task.device)
        variance = torch.full((len(y),), task.settings.noise_sigma**2, device=task.device)
        config = RestorationConfig(known=KnownKernelConfig(num_samples=1).cautious())
        for done in range(self.iterations):
            task.progress("EM", done, self.iterations)
            result = _run(replace(task, progress=_silent), kernel, config)
            x = to_rgb(result.tensor).to(task.device)
            kernel = operator.m_step(x[:, None], y, kernel.to(task.device), variance).cpu()
        return replace(result, kernel=kernel, trace=[], seconds={"total": perf_counter() - started})


def _silent(stage: str, done: int, total: int) -> None:
    """Reports nothing, because the iterations are reported instead."""


KERNEL_PRIORS: dict[str, Method] = {
    "deblur-kernel-diffusion": OtherKernelPrior("diffusion"),
    "deblur-no-kernel-prior": OtherKernelPrior("none"),
}
"""The default method with other priors of kernels, by the names that `--methods` has for them."""


def _run(
    task: Task, kernel: Tensor | None, config: RestorationConfig, operator: Callable[..., Blur] = Blur
) -> Result:
    settings = task.settings
    chosen = Settings(
        settings.kernel_size,
        None if settings.estimate_noise else settings.noise_sigma,
        seed=settings.seed,
        boundary=settings.boundary,
    )
    if settings.steps is not None:
        config = in_fewer_steps(config, settings.steps)
    restoration = ImageRestoration(task.blurred, chosen, kernel, operator=operator, config=config)
    prior, denoiser = networks(settings.prior, task.device)
    return restoration.run(prior, denoiser, task.device, progress=task.progress)


def in_fewer_steps(config: RestorationConfig, steps: int) -> RestorationConfig:
    """`config` with passes of `steps` per 1000 timesteps.

    Algorithm 1 counts in steps of one timestep. With fewer steps each follows the gradient 1000 / `steps` times
    as far, and full steps are at the same timesteps as before.
    """
    coarsening = 1000 / steps
    config = config.with_steps(steps)
    e_step, skip = config.known.e_step, config.skip
    if not isinstance(e_step, Posterior):
        return config
    e_step = replace(e_step, scale=e_step.scale * coarsening)
    if skip != EVERY_STEP:
        skip = replace(skip, every=round(skip.every * coarsening))
    return replace(config, e_step=e_step, skip=skip, known=replace(config.known, e_step=e_step, skip=skip))


@lru_cache(maxsize=1)
def networks(prior: str, device: torch.device) -> tuple[LatentPrior, KernelDenoiser]:
    """The prior called `prior` and the kernel denoiser, loaded once for all methods.

    Raises:
        UserError: see `load_prior`.
    """
    return load_prior(prior, device), load_kernel_denoiser(device=device)
