"""Blind restoration at the working size: several hypotheses, coarse to fine, the best one kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators.blur import Blur, resize_kernel
from ..operators.kernels import delta_kernel, gaussian_kernel
from ..priors.base import LatentPrior
from ..priors.kernel_denoiser import KernelDenoiser
from ..solver.data_weight import ModellingError
from ..solver.e_step import EStep, Proximal
from ..solver.latentdem import LatentDEM
from ..solver.passes import NO_HOOKS, Candidates, Hooks, full_steps, run_passes
from ..solver.schedules import EVERY_STEP, Skip
from .config import Round, SearchConfig, reduced_kernel
from .selection import choose, likeliest, merged_kernels, plausibility, together
from .trials import TRIAL_STEPS, tried


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
        operator: makes the operator from kernel size, denoiser, settings of the M-step and mask.
    """

    cautious = True

    def __init__(
        self,
        prior: LatentPrior,
        denoiser: KernelDenoiser,
        recipe: SearchConfig | None = None,
        e_step: EStep | None = None,
        skip: Skip | None = None,
        num_samples: int = 1,
        operator: Callable[..., Blur] = Blur,
    ) -> None:
        self.operator = operator
        self.prior, self.denoiser, self.recipe = prior, denoiser, recipe or SearchConfig()
        self.e_step = e_step
        self.skip, self.num_samples = skip or EVERY_STEP, num_samples

    def work(self, height: int, width: int, kernel_size: int) -> int:
        """Pixels that all full EM steps together go through, for one measurement of this size."""
        total, alive = 0, len(self.recipe.starts)
        trial = 2 * TRIAL_STEPS if alive > 1 else 0  # at the coarsest scale with turned kernels, too
        for factor, rounds in self.recipe.scales(min(height, width), kernel_size):
            steps = 0
            for each in rounds:
                steps += alive * (self.num_samples * full_steps(each.passes, self.skip) + trial)
                alive = each.keep
            total += (height // factor) * (width // factor) * steps
            trial = min(trial, TRIAL_STEPS)
        return total

    def __call__(
        self,
        y: Tensor,
        kernel_size: int,
        noise_sigma: Tensor,
        generator: torch.Generator,
        mask: Tensor | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates:
        """The most plausible candidate of each image, its kernel averaged with those that agree.

        Args:
            y: (B, 3, H, W) in [-1, 1].
            kernel_size: K.
            noise_sigma: (B,) standard deviation of the noise.
            generator: the only source of randomness.
            mask: (1, 1, H, W), 1 where y was measured; None for everywhere.
            hooks: what is told about the run while it goes on.
        """
        found: Candidates | None = None
        which = torch.arange(len(self.recipe.starts), device=y.device).repeat(len(y))
        for factor, rounds in self.recipe.scales(min(y.shape[-2:]), kernel_size):
            scale = self._scale(y, noise_sigma, mask, kernel_size, factor)
            found, which = self._search(scale, rounds, found, which, generator, hooks)
        assert found is not None  # there is at least one scale
        return found

    def _search(
        self,
        scale: _Scale,
        rounds: tuple[Round, ...],
        found: Candidates | None,
        which: Tensor,
        generator: torch.Generator,
        hooks: Hooks,
    ) -> tuple[Candidates, Tensor]:
        """The hypotheses that are left after the rounds at one scale, and of which starts they are.

        Between the rounds they are chosen by their kernels, after the last one by the evidence for all that the
        rounds have found: a hypothesis may get worse from one round to the next.
        """
        batch = len(scale.y)
        if found is None:
            kernel, image, trace = self._first_kernels(scale).repeat(batch, 1, 1, 1), None, []
        else:
            kernel, image, trace = found.parameters, found.image, found.trace
            kernel = resize_kernel(kernel, scale.kernel_size, 2.0)
            image = F.interpolate(image, scale.y.shape[-2:], mode="bicubic")
        for number, each in enumerate(rounds):
            latest = self._run(each, scale, kernel, image, which, generator, hooks)
            latest.trace[:0] = trace
            if number == 0:
                everything, starts = latest, which
            else:
                everything = together(everything, latest, batch)
                starts = torch.cat([part.view(batch, -1) for part in (starts, which)], 1).flatten()
            if number + 1 < len(rounds):
                best = choose(latest, scale.sigma, each.keep)
                kept, which = latest.pick(best), which[best]
                kernel, image, trace = kept.parameters, kept.image, kept.trace
        if len(self.recipe.starts) > 1:
            if found is None:
                everything, turned = _with_turned(everything, batch)
                starts = starts.view(batch, -1).repeat(1, 2).flatten()
            trial = tried(
                self.prior,
                self.operator(scale.kernel_size, mask=scale.mask, fixed=True),
                scale.y,
                everything.parameters,
                scale.sigma,
                generator.initial_seed(),
                stage=scale.name,
                hooks=hooks,
            )
            everything = replace(everything, evidence=trial.evidence)
            if found is None:  # what was turned has no image of its own
                image = torch.where(turned[:, None, None, None], trial.image, everything.image)
                residual = torch.where(turned, trial.residual, everything.residual)
                everything = replace(everything, image=image, residual=residual)
        score = plausibility(everything).view(batch, -1)
        best = likeliest(score, rounds[-1].keep)
        kept = everything.pick(best)
        if rounds[-1].keep == 1:
            kept = replace(
                kept,
                parameters=merged_kernels(everything.parameters, score, best, len(latest.residual) // batch),
            )
        return kept, starts[best]

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
        operator = self.operator(
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


def _with_turned(candidates: Candidates, images: int) -> tuple[Candidates, Tensor]:
    """Before those of each image all of them with kernels turned by 180 degrees, and which are turned (2 N,).

    A kernel and the turned one have the same power spectrum, and the first steps of a search may end at either;
    the residual does not tell them apart, what the prior makes of the measurement does.
    """
    index = torch.arange(len(candidates.residual), device=candidates.residual.device).view(images, -1)
    turned = torch.cat([torch.ones_like(index), torch.zeros_like(index)], dim=1).flatten().bool()
    twice = candidates.pick(index.repeat(1, 2).flatten())
    kernels = torch.where(turned[:, None, None, None], twice.parameters.flip(-2, -1), twice.parameters)
    return replace(twice, parameters=kernels), turned


def shrink_mask(mask: Tensor | None, factor: int) -> Tensor | None:
    """A reduced pixel counts as measured when all it covers was."""
    return None if mask is None else (F.avg_pool2d(mask, factor) > 0.999).to(mask.dtype)
