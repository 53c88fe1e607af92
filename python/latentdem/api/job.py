"""One restoration as it was asked for: its settings checked, then run with a prior."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from latentdem_ext import record_backends

from ..checks import check_backend, check_kernel, check_kernel_size, check_noise_sigma
from ..errors import UserError
from ..operators import Blur, KernelFamily
from ..output.report import versions
from ..output.result import Result
from ..priors import LatentPrior
from ..priors.kernel_denoiser import KernelDenoiser
from ..restoration.boundary import looks_circular
from ..restoration.config import RestorationConfig, algorithm_1
from ..restoration.image import ImageRestoration, KernelSearch, Progress
from ..restoration.noise import estimate_noise_sigma
from ..search.blind import BlindSearch
from ..search.family import FamilySearch
from ..solver.checkpoint import Checkpoint, digest
from ..solver.e_step import Posterior
from ..solver.schedules import EVERY_STEP
from ..solver.state import State


@dataclass(frozen=True)
class Job:
    """What is to be done with measurements of one size; the arguments of `latentdem.deblur` of these names.

    Attributes:
        y: (B, C, H, W) float32 measurements in [-1, 1], C = 1 or 3, on the CPU.
        mask: (1, 1, H, W), 1 where they count; None for everywhere.
        operator: of the search for the kernel, see `BlindSearch`.
        cautious: whether the measured modelling error counts though the kernel is known.

    Raises:
        UserError: one of them is wrong; the message says which and what to do.
    """

    y: Tensor
    kernel_size: int
    kernel: Tensor | None = None
    noise_sigma: float | None = None
    e_step: Literal["proximal", "posterior"] = "proximal"
    without: Collection[str] = ()
    steps: int | None = None
    seed: int = 0
    boundary: Literal["auto", "circular", "valid"] = "auto"
    num_samples: int = 1
    mask: Tensor | None = None
    operator: Callable[..., Blur] = Blur
    cautious: bool = False

    def __post_init__(self) -> None:
        batch, _, height, width = self.y.shape
        if self.kernel is not None:
            kernel = check_kernel(self.kernel, batch)
            object.__setattr__(self, "kernel", kernel)
            object.__setattr__(self, "kernel_size", kernel.shape[-1])
        check_kernel_size(self.kernel_size, height, width)
        if self.noise_sigma is not None:
            check_noise_sigma(self.noise_sigma)
        if self.boundary not in ("auto", "circular", "valid"):
            raise UserError(f"Unknown boundary '{self.boundary}'; give auto, circular or valid.")
        if self.e_step not in ("proximal", "posterior"):
            raise UserError(f"Unknown E-step '{self.e_step}'; give proximal or posterior.")
        parts = ("annealing", "gluing", "skipping") if self.e_step == "posterior" else ()
        for part in self.without:
            if part not in parts:
                raise UserError(
                    f"The {self.e_step} E-step has no {part} to leave out; "
                    + (f"it has {', '.join(parts)}." if parts else "the posterior one has such parts.")
                )
        if (self.steps is not None and self.steps < 2) or self.num_samples < 1:
            raise UserError("At least 2 steps and 1 sample are needed.")

    def run(
        self,
        prior: LatentPrior,
        denoiser: KernelDenoiser | KernelFamily,
        device: torch.device,
        *,
        progress: Progress | None = None,
        on_step: Callable[[State], None] | None = None,
        checkpoint: Checkpoint | None = None,
        latents: Tensor | None = None,
        plan: RestorationConfig | None = None,
    ) -> Result:
        """Does it on `device`, where prior and denoiser are; see `ImageRestoration` for the other arguments.

        Args:
            denoiser: of the kernel that is sought, or the family that it is of.
            plan: how; None for what the E-step, the parts left out and the steps ask for.

        Raises:
            UserError: latents that have no meaning here or are of another shape.
        """
        started, backend, y = time.perf_counter(), check_backend(), self.y
        if self.noise_sigma is None:
            sigma = estimate_noise_sigma(y)
        else:
            sigma = torch.full((len(y),), float(self.noise_sigma))
        circular = looks_circular(y) if self.boundary == "auto" else self.boundary == "circular"
        plan = plan or self.plan()
        samples = self.num_samples
        search: KernelSearch
        if isinstance(denoiser, KernelFamily):
            search = FamilySearch(prior, denoiser, self.operator)
        else:
            search = BlindSearch(prior, denoiser, plan.recipe, plan.e_step, plan.skip, samples, self.operator)
        restoration = ImageRestoration(
            search,
            replace(plan.known, num_samples=max(plan.known.num_samples, samples)),
            plan.again,
            self.kernel_size,
            self.seed,
            circular,
            progress,
            on_step,
            checkpoint,
            latents,
            None if self.mask is None else self.mask.to(device),
        )
        kernel = None if self.kernel is None else self.kernel.to(device)
        with record_backends() as operations:
            found = restoration.run(y.expand(-1, 3, -1, -1).to(device), sigma.to(device), kernel)
        restored = found.image if y.shape[1] == 3 else found.image.mean(1, keepdim=True)
        return Result(
            image=restored.cpu(),
            kernel=found.parameters.cpu(),
            blurred=y,
            noise_sigma=sigma.cpu(),
            residual=found.residual.cpu(),
            trace=found.trace,
            seconds={**restoration.seconds, "total": time.perf_counter() - started},
            settings={
                **self.settings(),
                "prior": name_of(prior),
                "device": str(device),
                "backend": backend,
                "operations": {name: ", ".join(used) for name, used in sorted(operations.items())},
                "boundary": "circular" if circular else "valid",
            },
        )

    def settings(self) -> dict[str, Any]:
        """What was asked for, without image and kernel, as plain data."""
        return {
            "kernel_size": self.kernel_size,
            "kernel_known": self.kernel is not None,
            "noise_sigma": self.noise_sigma,
            "e_step": self.e_step,
            "without": sorted(self.without),
            "steps": self.steps,
            "seed": self.seed,
            "boundary": self.boundary,
            "num_samples": self.num_samples,
        }

    def checkpoint(self, folder: str | Path, prior: str, device: torch.device) -> Checkpoint:
        """A checkpoint of this job in `folder`, for a prior of this name.

        Raises:
            UserError: the folder holds another one, or cannot be written.
        """
        held = (self.y,) if self.kernel is None else (self.y, self.kernel)
        surroundings = {"prior": prior, "device": str(device), "backend": check_backend(), **versions()}
        return Checkpoint(
            folder, {**self.settings(), **surroundings, "image and kernel": " ".join(map(digest, held))}
        )

    def plan(self) -> RestorationConfig:
        """What belongs to the E-step and the parts left out."""
        if self.e_step == "proximal":
            plan = RestorationConfig()
        else:
            step = Posterior()
            if "annealing" in self.without:
                step = replace(step, annealing=None)
            if "gluing" in self.without:
                step = replace(step, gluing=0.0)
            plan = algorithm_1(step, EVERY_STEP if "skipping" in self.without else None)
        if self.cautious:
            plan = replace(plan, known=plan.known.cautious())
        return plan if self.steps is None else plan.with_steps(self.steps)


def name_of(prior: object) -> str:
    """The name a prior was asked for by, what it calls itself, or its class."""
    return str(prior) if isinstance(prior, (str, Path)) else getattr(prior, "name", type(prior).__name__)
