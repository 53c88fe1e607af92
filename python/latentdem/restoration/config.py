"""The constants of every part of a restoration, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ..operators.blur import HQS
from ..search.config import PAPER, Round, SearchConfig
from ..search.gradient_first import GradientFirst
from ..solver.data_weight import DataWeight, MaximumLikelihood, ModellingError, MostCautious
from ..solver.e_step import EStep, Posterior, Proximal
from ..solver.passes import Pass, full_steps
from ..solver.schedules import EVERY_STEP, Skip

Quality = Literal["auto", "fast", "balanced", "best"]

# Few steps from noise on give an image from which finer ones at lower timesteps start: as good, and less work.
_FAST = (Pass(3),)
_BALANCED = (Pass(2), Pass(15, 400))
_BEST = (Pass(3), Pass(12, 400), Pass(30, 150))
_QUALITIES = {"fast": (_FAST, 1), "balanced": (_BALANCED, 1), "best": (_BEST, 4)}  # passes and samples


@dataclass(frozen=True)
class KnownKernelConfig:
    """How an image is restored once its kernel is known, or estimated.

    Attributes:
        passes: passes of the reverse diffusion.
        e_step: E-step of every pass; by default without limits of the image, which the pixel-space step keeps.
        skip: which steps are full ones.
        num_samples: posterior samples; the image is their mean, which is nearer to the truth than each.
        consistency: data weight of the pixel-space step after each pass, see `run_passes`.
    """

    passes: tuple[Pass, ...] = _BEST
    e_step: EStep = Proximal(MaximumLikelihood(), iterations=0)
    skip: Skip = EVERY_STEP
    num_samples: int = 4
    consistency: DataWeight = MaximumLikelihood()

    def cautious(self, factor: float | Tensor = 1.0) -> KnownKernelConfig:
        """The same for an estimated kernel, which may be wrong: its measured modelling error counts too.

        Args:
            factor: how much, see `ModellingError`; a tensor (B,) for each image.
        """
        samples = factor.repeat_interleave(self.num_samples) if isinstance(factor, Tensor) else factor
        of_samples, of_images = (
            MostCautious((ModellingError(one), MaximumLikelihood())) for one in (samples, factor)
        )
        e_step = self.e_step
        if isinstance(e_step, Proximal):
            e_step = replace(e_step, data_weight=of_samples)
        return replace(self, e_step=e_step, consistency=of_images)

    def steps(self) -> int:
        """Full EM steps of all samples."""
        return full_steps(self.passes, self.skip) * self.num_samples


@dataclass(frozen=True)
class RestorationConfig:
    """What `ImageRestoration` does; the default is this package's method.

    Attributes:
        search: constants of the blind search.
        gradients: constants of the start from gradients; None for the blind search alone.
        known: how the image is restored as a whole with a known kernel.
        tiles: the same for an image that is too large to be restored as a whole.
        e_step: E-step of the search; None for `Proximal` with each hypothesis's modelling error.
        skip: which steps of the search are full ones.
        again: whether the image is restored again after the search, or the search's own image is the result.
    """

    search: SearchConfig = SearchConfig()
    gradients: GradientFirst | None = GradientFirst()
    known: KnownKernelConfig = KnownKernelConfig()
    tiles: KnownKernelConfig = KnownKernelConfig(_BALANCED, num_samples=1)
    e_step: EStep | None = None
    skip: Skip = EVERY_STEP
    again: bool = True

    def with_steps(self, steps: int) -> RestorationConfig:
        """The same with passes of `steps` per 1000 timesteps; a restoration is one such pass."""
        coarse, fine = (
            tuple(_with_steps(one, steps) for one in rounds)
            for rounds in (self.search.coarse, self.search.fine)
        )
        search = replace(self.search, coarse=coarse, fine=fine)
        known, tiles = (replace(one, passes=(Pass(steps),)) for one in (self.known, self.tiles))
        return replace(self, search=search, known=known, tiles=tiles)

    def with_quality(self, quality: Quality) -> RestorationConfig:
        """The same with the passes and samples of a quality."""
        if quality == "auto":
            return self
        passes, samples = _QUALITIES[quality]
        known, tiles = (replace(one, passes=passes, num_samples=samples) for one in (self.known, self.tiles))
        return replace(self, known=known, tiles=tiles)


def algorithm_1(
    e_step: EStep | None = None, skip: Skip | None = None, hqs: HQS | None = None, again: bool = False
) -> RestorationConfig:
    """Algorithm 1 with the paper's constants, or these in their place."""
    e_step, skip = e_step or Posterior(), skip or Skip()
    search = PAPER if hqs is None else replace(PAPER, coarse=(replace(PAPER.coarse[0], hqs=hqs),))
    known = KnownKernelConfig(PAPER.coarse[0].passes, e_step, skip, 1)
    return RestorationConfig(search, None, known, known, e_step, skip, again)


def _with_steps(part: Round, steps: int) -> Round:
    """A `Round` whose passes take `steps` per 1000 timesteps."""
    return replace(part, passes=tuple(replace(one, steps=steps) for one in part.passes))
