"""Blind restoration at the working size: several hypotheses, coarse to fine, the best one kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .consensus import choose, merged_kernels
from .e_steps import EStep, Proximal
from .kernel_denoiser import KernelDenoiser
from .motion import delta_kernel, gaussian_kernel
from .operators.blur import HQS, Blur, resize_kernel
from .priors.base import LatentPrior
from .schedules import EVERY_STEP, Skip
from .solver import LatentDEM
from .stages import NO_HOOKS, Candidates, Hooks, Pass, full_steps, run_passes
from .trust import ModellingError, Trust


@dataclass(frozen=True)
class Start:
    """One hypothesis of the blind search.

    Attributes:
        width: standard deviation of its first Gaussian kernel in units of K; 0 is a delta.
        level: the denoiser's noise level in units of the kernel's peak; None for the paper's absolute
            sqrt(lambda / delta).
        m_step_from: no M-step above this timestep.
        modelling_error: c of the proximal E-step (see `ModellingError`).
    """

    width: float
    level: float | None = 0.05
    m_step_from: int = 950
    modelling_error: float = 2.0


@dataclass(frozen=True)
class Round:
    """Passes of the hypotheses still in the race, after which the best `keep` of each image go on."""

    passes: tuple[Pass, ...]
    hqs: HQS
    keep: int = 1


@dataclass(frozen=True)
class Recipe:
    """Constants of the blind search.

    Attributes:
        starts: the hypotheses, run as one batch.
        coarse: rounds at the coarsest scale.
        fine: rounds at every finer scale.
        largest_kernel: above this K the image is halved before the search, again and again.
        halved_kernel: above this K it is halved too, where that leaves at least `halved_side` pixels a side:
            the search takes a quarter of the time there and sees more of the picture at once.
        consistency: of the pixel-space step after each pass, see `run_passes`.
        sigma_floor: least noise standard deviation assumed at reduced size, for the error of reducing.
    """

    starts: tuple[Start, ...] = (
        Start(0.3),
        Start(0.15),
        Start(0.3, m_step_from=700),
        Start(0.15, m_step_from=700, modelling_error=5.0),
        Start(0.3, m_step_from=550, modelling_error=5.0),
        Start(0.3, modelling_error=5.0),
        Start(0.15, 0.08, m_step_from=700, modelling_error=5.0),
        Start(0.2, m_step_from=700, modelling_error=5.0),
    )
    coarse: tuple[Round, ...] = (
        Round((Pass(30),), HQS(5, 1e6, centre=True), keep=4),
        Round((Pass(40, 600),), HQS(5, 1e6, centre=True), keep=2),
    )
    fine: tuple[Round, ...] = (Round((Pass(40, 500),), HQS(5, 3e6, centre=True)),)
    largest_kernel: int = 40
    halved_kernel: int = 20
    halved_side: int = 112
    consistency: Trust = ModellingError(1.0)
    sigma_floor: float = 0.01


PAPER = Recipe(
    starts=(Start(0.0, None, 1000),),
    coarse=(Round((Pass(1000),), HQS(pixels=512 * 512)),),
    fine=(),
    largest_kernel=10**6,
    halved_kernel=10**6,
)
"""Algorithm 1 with the paper's constants, delta for 512 x 512: one run of 1000 steps from a delta kernel."""


@dataclass(frozen=True)
class _Scale:
    """A measurement at one scale: `y` (B, 3, H, W), `sigma` (B,), `mask`, kernel size and name."""

    y: Tensor
    sigma: Tensor
    mask: Tensor | None
    kernel_size: int
    name: str


class BlindSearch:
    """Finds the kernel of measurements on their lattice.

    Args:
        prior: latent diffusion prior.
        denoiser: kernel denoiser of the M-step.
        recipe: constants.
        e_step: E-step of every pass; None for `Proximal` with each hypothesis's modelling error.
        skip: which steps are full ones; None for all.
        num_samples: posterior samples per hypothesis.
    """

    def __init__(
        self,
        prior: LatentPrior,
        denoiser: KernelDenoiser,
        recipe: Recipe | None = None,
        e_step: EStep | None = None,
        skip: Skip | None = None,
        num_samples: int = 1,
    ) -> None:
        self.prior, self.denoiser, self.recipe = prior, denoiser, recipe or Recipe()
        self.e_step = e_step
        self.skip, self.num_samples = skip or EVERY_STEP, num_samples

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels that all full EM steps together go through, for one measurement of this size."""
        total, alive = 0, len(self.recipe.starts)
        for factor, each in self._rounds(height, width, kernel_size):
            pixels = (height // factor) * (width // factor)
            total += pixels * alive * full_steps(each.passes, self.skip)
            alive = each.keep
        return total * self.num_samples

    def __call__(
        self,
        y: Tensor,
        kernel_size: int,
        noise_sigma: Tensor,
        generator: torch.Generator,
        mask: Tensor | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates:
        """The best candidate of each image, its kernel averaged with those that agree (`merged_kernels`).

        Args:
            y: (B, 3, H, W) in [-1, 1].
            kernel_size: K.
            noise_sigma: (B,) standard deviation of the noise.
            generator: the only source of randomness.
            mask: (1, 1, H, W), 1 where y was measured; None for everywhere.
            hooks: what is told about the run while it goes on.
        """
        batch = len(y)
        which = torch.arange(len(self.recipe.starts), device=y.device).repeat(batch)
        found: Candidates | None = None
        for factor, each in self._rounds(y.shape[-2], y.shape[-1], kernel_size):
            scale = self._scale(y, noise_sigma, mask, kernel_size, factor)
            if found is None:
                kernel, image, trace = self._first_kernels(scale).repeat(batch, 1, 1, 1), None, []
            else:
                kernel, image, trace = found.parameters, found.image, found.trace
                if kernel.shape[-1] != scale.kernel_size:
                    kernel = resize_kernel(kernel, scale.kernel_size, 2.0)
                    image = F.interpolate(image, scale.y.shape[-2:], mode="bicubic")
            found = self._run(each, scale, kernel, image, which, generator, hooks)
            found.trace[:0] = trace
            everything, best = found, choose(found, scale.sigma, each.keep)
            found, which = found.pick(best), which[best]
        if found is None:
            raise ValueError("the recipe has no rounds")
        return replace(found, parameters=merged_kernels(everything, best))

    def _rounds(self, height: int, width: int, kernel_size: int) -> list[tuple[int, Round]]:
        """(reduction, round) in order; the last one keeps a single hypothesis."""
        factor = coarsest_factor(kernel_size, min(height, width), self.recipe)
        rounds = [(factor, each) for each in self.recipe.coarse]
        while factor > 1:
            factor //= 2
            rounds += [(factor, each) for each in self.recipe.fine]
        return [*rounds[:-1], (rounds[-1][0], replace(rounds[-1][1], keep=1))]

    def _scale(self, y: Tensor, sigma: Tensor, mask: Tensor | None, kernel_size: int, factor: int) -> _Scale:
        if factor == 1:
            return _Scale(y, sigma, mask, kernel_size, "kernel search")
        return _Scale(
            F.avg_pool2d(y, factor),
            (sigma / factor).clamp_min(self.recipe.sigma_floor),
            shrink_mask(mask, factor),
            reduced_kernel(kernel_size, factor),
            f"kernel search at 1/{factor} size",
        )

    def _run(
        self,
        each: Round,
        scale: _Scale,
        kernel: Tensor,
        image: Tensor | None,
        which: Tensor,
        generator: torch.Generator,
        hooks: Hooks,
    ) -> Candidates:
        """All passes of a round, for all hypotheses at once."""
        hypotheses = len(kernel) // len(scale.y)
        operator = Blur(
            scale.kernel_size,
            self.denoiser.denoise,
            replace(each.hqs, noise_level=self._of_start("level", which)),
            scale.mask,
        )
        e_step = self.e_step or Proximal(
            ModellingError(self._of_start("modelling_error", which, self.num_samples))
        )
        solver = LatentDEM(
            self.prior,
            operator,
            e_step,
            skip=self.skip,
            num_samples=self.num_samples,
            m_step_from=self._of_start("m_step_from", which),
            hypotheses=hypotheses,
        )
        return run_passes(
            solver,
            operator,
            each.passes,
            scale.y.repeat_interleave(hypotheses, 0),
            kernel,
            scale.sigma.repeat_interleave(hypotheses),
            generator,
            consistency=self.recipe.consistency,
            image=image,
            stage=scale.name,
            hooks=hooks,
        )

    def _of_start(self, name: str, which: Tensor, repeats: int = 1) -> Any:
        """A setting of the hypotheses `which` as a tensor, each `repeats` times; None where one has none."""
        values = [getattr(start, name) for start in self.recipe.starts]
        if None in values:
            return None
        return torch.tensor(values, device=which.device)[which].repeat_interleave(repeats)

    def _first_kernels(self, scale: _Scale) -> Tensor:
        size = scale.kernel_size
        widths = (start.width * size for start in self.recipe.starts)
        kernels = [gaussian_kernel(size, width) if width else delta_kernel(size) for width in widths]
        return torch.cat(kernels).to(scale.y)


def coarsest_factor(kernel_size: int, side: int, recipe: Recipe) -> int:
    """The power of two by which the search of a K x K kernel reduces an image of `side` pixels at first."""
    factor = 1
    while kernel_size / factor > recipe.largest_kernel or (
        kernel_size / factor > recipe.halved_kernel and side // (2 * factor) >= recipe.halved_side
    ):
        factor *= 2
    while factor > 1 and reduced_kernel(kernel_size, factor) > side // factor:
        factor //= 2
    return factor


def reduced_kernel(kernel_size: int, factor: int) -> int:
    """Size of a K x K kernel on an image reduced by `factor` > 1."""
    return kernel_size // factor + 1


def shrink_mask(mask: Tensor | None, factor: int) -> Tensor | None:
    """A reduced pixel counts as measured when all it covers was."""
    return None if mask is None else (F.avg_pool2d(mask, factor) > 0.999).to(mask.dtype)
