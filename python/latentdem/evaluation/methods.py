"""What is evaluated: this package's method under a plan, and classic EM around its known-kernel restoration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter

import torch
from torch import Tensor

from ..operators.blur import Blur
from ..operators.kernels import gaussian_kernel
from ..output.result import Result
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from ..restoration.config import KnownKernelConfig, RestorationConfig
from ..restoration.image import ImageRestoration
from ..restoration.settings import Settings
from ..search.config import SearchConfig
from ..solver.e_step import Posterior
from ..solver.schedules import EVERY_STEP
from .cases import Task


def deblur(task: Task) -> Result:
    """`latentdem.deblur` with the settings of the evaluation."""
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
    )


@dataclass(frozen=True)
class LatentDEM:
    """This package's method under a plan, with the true kernel where the settings are non-blind.

    Attributes:
        plan: how.
        guess: with a Gaussian kernel of this standard deviation, in units of K, instead of a search.
    """

    plan: RestorationConfig = field(default_factory=RestorationConfig)
    guess: float | None = None

    def __call__(self, task: Task) -> Result:
        kernel, plan = task.kernel if task.settings.non_blind else None, self.plan
        if self.guess is not None:
            size = task.kernel.shape[-1]
            kernel = gaussian_kernel(size, self.guess * size)
            plan = replace(plan, known=plan.known.cautious())
        return _run(task, kernel, plan)


@dataclass(frozen=True)
class VanillaEM:
    """Expectation-maximisation to the letter: each E-step is a whole reverse diffusion, its kernel fixed.

    First kernel and M-step are those of this package's search, one posterior sample.

    Attributes:
        iterations: EM iterations. Table 6 of the paper has 120 minutes, Table 2 6.55 for a whole diffusion
            without skipping: about 18.
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
        y = task.blurred.expand(-1, 3, -1, -1).to(task.device)
        variance = torch.full((len(y),), task.settings.noise_sigma**2, device=task.device)
        e_step = RestorationConfig(known=KnownKernelConfig(num_samples=1).cautious())
        for done in range(self.iterations):
            task.progress("EM", done, self.iterations)
            found = _run(replace(task, progress=_silent), kernel, e_step)
            x = found.image.expand(-1, 3, -1, -1).to(task.device)
            kernel = operator.m_step(x[:, None], y, kernel.to(task.device), variance).cpu()
        return replace(found, kernel=kernel, trace=[], seconds={"total": perf_counter() - started})


def _silent(stage: str, done: int, total: int) -> None:
    """Reports nothing: the iterations are reported instead."""


def _run(task: Task, kernel: Tensor | None, plan: RestorationConfig) -> Result:
    settings = task.settings
    chosen = Settings(
        settings.kernel_size,
        None if settings.estimate_noise else settings.noise_sigma,
        seed=settings.seed,
        boundary=settings.boundary,
    )
    if settings.steps is not None:
        plan = in_fewer_steps(plan, settings.steps)
    restoration = ImageRestoration(task.blurred, chosen, kernel, config=plan)
    prior, denoiser = networks(settings.prior, task.device)
    return restoration.run(prior, denoiser, task.device, progress=task.progress)


def in_fewer_steps(plan: RestorationConfig, steps: int) -> RestorationConfig:
    """`plan` with passes of `steps` per 1000 timesteps.

    Algorithm 1 counts in steps of one timestep: of fewer, each follows the gradient 1000 / `steps` times
    as far, and every K-th is a full one as before.
    """
    coarsening = 1000 / steps
    plan = plan.with_steps(steps)
    e_step, skip = plan.known.e_step, plan.skip
    if not isinstance(e_step, Posterior):
        return plan
    e_step = replace(e_step, scale=e_step.scale * coarsening)
    if skip != EVERY_STEP:
        skip = replace(skip, every=round(skip.every * coarsening))
    return replace(plan, e_step=e_step, skip=skip, known=replace(plan.known, e_step=e_step, skip=skip))


@lru_cache(maxsize=1)
def networks(prior: str, device: torch.device) -> tuple[LatentPrior, KernelDenoiser]:
    """The prior of this name and the kernel denoiser, loaded once for all methods.

    Raises:
        UserError: see `load_prior`.
    """
    return load_prior(prior, device), load_kernel_denoiser(device=device)
