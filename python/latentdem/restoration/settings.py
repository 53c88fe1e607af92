"""What a user chooses for a restoration, as one value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from ..checks import check_kernel, check_kernel_size, check_noise_sigma, check_seed, check_whole
from ..errors import UserError
from ..operators.tone_curve import ToneCurve
from ..solver.e_step import Posterior
from ..solver.schedules import EVERY_STEP
from .config import Quality, RestorationConfig, algorithm_1

# With as many the uncertainty was calibrated (docs/research/deblurring.md, "Calibration of the uncertainty").
UNCERTAINTY_SAMPLES = 4

BoundaryChoice = Literal["auto", "circular", "valid"]
GammaChoice = float | Literal["srgb", "auto"]
BlurChoice = Literal["uniform", "varying"]


@dataclass(frozen=True)
class Settings:
    """What a user chooses; the command line fills it, and everything below passes it on whole.

    Attributes:
        kernel_size: K of the K x K kernel in pixels, from 3 to the smaller side of the image; at least as wide
            as the blur. None finds it. The size of a given kernel takes its place.
        noise_sigma: standard deviation of the measurement noise, in units of [-1, 1]; None estimates it.
        e_step: "proximal" (closed form, the default) or "posterior" (Algorithm 1 of the paper with its
            constants; far slower).
        without: parts of the posterior E-step to leave out, to see what they do: any of "annealing" (its weight
            is the last one throughout), "gluing" and "skipping" (every step is a full one).
        steps: diffusion steps per 1000 timesteps; None takes the default of the E-step.
        seed: random seed, a whole number of 64 bits; the same seed gives the same image.
        boundary: "circular" when the blur wraps around, "valid" when light came in from beyond the frame as
            in every photograph, "auto" to look at the edges and decide.
        num_samples: posterior samples that the M-step sums over; the image is the mean of at least these. Above
            1, their spread is measured, see `Result.uncertainty`.
        quality: how much time the restoration takes once the kernel is known: "best" is the mean of 4 runs of
            13 steps, "balanced" is one of 8 steps, "fast" one of 3; "auto" is "best" where the image is
            restored as a whole and "balanced" where it is in tiles. Of no effect with the posterior E-step.
        gamma: the tone curve between the light that was blurred and the values of the file: 1 where the values
            themselves were blurred, "srgb", or an exponent up to 4 such as 2.2, see `operators.ToneCurve`;
            "auto" estimates a kernel in the values and in the light of sRGB and takes what explains it better.
        blur: "uniform" for one kernel, "varying" for a camera that turned during the exposure, whose kernels
            follow from its poses and differ from place to place (`search.camera_poses`).
        same_kernel: whether the photographs of a batch have one kernel, which is found from all of them.

    Raises:
        UserError: a value is wrong; the message says which and what to do.
    """

    kernel_size: int | None = None
    noise_sigma: float | None = None
    e_step: Literal["proximal", "posterior"] = "proximal"
    without: Collection[str] = ()
    steps: int | None = None
    seed: int = 0
    boundary: BoundaryChoice = "auto"
    num_samples: int = 1
    quality: Quality = "auto"
    gamma: GammaChoice = 1.0
    blur: BlurChoice = "uniform"
    same_kernel: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        check_whole("number of samples", self.num_samples)
        for what, value in (("kernel size", self.kernel_size), ("number of steps", self.steps)):
            if value is not None:
                check_whole(what, value)
        if self.noise_sigma is not None:
            check_noise_sigma(self.noise_sigma)
        if self.boundary not in ("auto", "circular", "valid"):
            raise UserError(f"Unknown boundary '{self.boundary}'; give auto, circular or valid.")
        if self.e_step not in ("proximal", "posterior"):
            raise UserError(f"Unknown E-step '{self.e_step}'; give proximal or posterior.")
        if self.quality not in get_args(Quality):
            raise UserError(f"Unknown quality '{self.quality}'; give auto, fast, balanced or best.")
        if self.gamma != "auto":
            ToneCurve.named(self.gamma)  # refuses what is none
        if self.blur not in get_args(BlurChoice):
            raise UserError(f"Unknown blur '{self.blur}'; give uniform or varying.")
        if self.same_kernel and (self.e_step, self.gamma, self.blur) != ("proximal", 1, "uniform"):
            raise UserError(
                "One kernel for several photographs is found with the proximal E-step, a tone curve of 1 and "
                "uniform blur; leave out the other choice, or the common kernel."
            )
        parts = ("annealing", "gluing", "skipping") if self.e_step == "posterior" else ()
        for part in self.without:
            if part not in parts:
                raise UserError(
                    f"The {self.e_step} E-step has no {part} to leave out; "
                    + (f"it has {', '.join(parts)}." if parts else "the posterior one has such parts.")
                )
        if (self.steps is not None and self.steps < 2) or self.num_samples < 1:
            raise UserError("At least 2 steps and 1 sample are needed.")

    def for_images(self, y: Tensor, kernel: Tensor | None) -> tuple[Settings, Tensor | None]:
        """The settings with the size of a given kernel, and that kernel for every image.

        Args:
            y: (B, C, H, W) images.
            kernel: (1 or B, 1, K, K), or None where it is unknown.

        Raises:
            UserError: the kernel is none, or too large for the images.
        """
        settings = self
        if kernel is not None:
            if self.blur == "varying":
                raise UserError(
                    "A given kernel is that of the whole image; leave it out, or the varying blur. Kernels "
                    "that differ from place to place can be given to the operator 'varying' of restore."
                )
            if self.same_kernel:
                raise UserError("A given kernel needs no search for a common one; leave out one of the two.")
            kernel = check_kernel(kernel, len(y))
            settings = replace(self, kernel_size=kernel.shape[-1])
        if settings.kernel_size is not None:
            check_kernel_size(settings.kernel_size, *y.shape[-2:])
        return settings, kernel

    def config(self) -> RestorationConfig:
        """The constants that belong to the E-step, the parts left out and the steps."""
        if self.e_step == "proximal":
            config = RestorationConfig().with_quality(self.quality)
        else:
            step = Posterior()
            if "annealing" in self.without:
                step = replace(step, annealing=None)
            if "gluing" in self.without:
                step = replace(step, gluing=0.0)
            config = algorithm_1(step, EVERY_STEP if "skipping" in self.without else None)
        return config if self.steps is None else config.with_steps(self.steps)

    def as_dict(self, *, kernel_known: bool) -> dict[str, Any]:
        """Plain data for reports and checkpoints."""
        values = asdict(self) | {"without": sorted(self.without)}
        return {"kernel_size": values.pop("kernel_size"), "kernel_known": kernel_known, **values}
