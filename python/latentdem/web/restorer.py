"""The restoration of one photograph for the page, with what can be seen of it while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..checks import resolve_device
from ..context import own_context
from ..io.images import ImageFile
from ..output.result import Result
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser
from ..restoration.image import ImageRestoration
from ..restoration.settings import UNCERTAINTY_SAMPLES, Settings
from ..solver.passes import Progress
from ..solver.state import State
from .choices import Choices


class Watch(Protocol):
    """Follows a restoration; what its methods raise ends the restoration."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Called after every step."""
        ...

    def wants_look(self) -> bool:
        """Whether the picture of this step is wanted; it takes a pass through the decoder."""
        ...

    def look(self, image: Tensor, kernel: Tensor) -> None:
        """Takes the image (1, 3, H, W) in [-1, 1] and the kernel (1, 1, K, K) as they are now."""
        ...


class Restore(Protocol):
    """Restores a photograph; see `Restorer`."""

    def __call__(self, photograph: ImageFile, choices: Choices, watch: Watch) -> Result:
        """The result, with `photograph` as its source."""
        ...


@dataclass(frozen=True)
class Restorer:
    """Restores photographs with networks that are loaded once.

    Attributes:
        prior, denoiser: on `device`.
        steps: diffusion steps per 1000 timesteps; None for the default.
    """

    prior: LatentPrior
    denoiser: KernelDenoiser
    device: torch.device
    steps: int | None = None

    @classmethod
    def load(cls, prior: str, device: str, precision: str, steps: int | None) -> Restorer:
        """The restorer with a prior called by name, see `load_prior`.

        Raises:
            UserError: there is no such prior, device or precision.
        """
        place = resolve_device(device)
        return cls(load_prior(prior, place, precision), load_kernel_denoiser(device=place), place, steps)

    @own_context()
    def __call__(self, photograph: ImageFile, choices: Choices, watch: Watch) -> Result:
        """Restores a photograph.

        With a region the kernel is found there first. Then the whole photograph is restored with it, with the
        care that an estimated kernel needs.

        Raises:
            UserError: the choices do not fit the photograph.
        """
        y, mask = photograph.pixels, photograph.opaque
        settings = Settings(
            choices.kernel_size,
            steps=self.steps,
            seed=choices.seed,
            quality=choices.quality,
            num_samples=UNCERTAINTY_SAMPLES if choices.uncertainty else 1,
        )
        if choices.region is None:
            result = self._run(ImageRestoration(y, settings, mask=mask), watch, watch.progress)
        else:
            rows, columns = choices.region.rows_and_columns(*y.shape[-2:])
            part = None if mask is None else mask[..., rows, columns]
            search = ImageRestoration(y[..., rows, columns], replace(settings, quality="fast"), mask=part)
            found = self._run(search, watch, _half(watch.progress, "region: ", 0))
            whole = ImageRestoration(y, settings, found.kernel, mask, cautious=True)
            result = self._run(whole, watch, _half(watch.progress, "", 1))
            for name in ("unexplained", "coverage", "lead", "kernel_uncertainty"):
                setattr(result, name, getattr(found, name))
            place = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            result.settings |= {"kernel_known": False, "region": place}
        result.source = photograph
        return result

    def _run(self, restoration: ImageRestoration, watch: Watch, progress: Progress) -> Result:
        height, width = restoration.y.shape[-2:]
        # Latents have no size in pixels of their own, but their scale is the same everywhere.
        scale = 512 // self.prior.latent_shape(512, 512)[-1]

        def look(state: State) -> None:
            if not watch.wants_look():
                return
            best = int(state.step.residual.argmin())  # of several kernels on trial
            samples = len(state.clean) // len(state.step.residual)
            latent = state.clean[best * samples][None]
            with torch.no_grad():
                image = self.prior.decode(latent, *(scale * n for n in latent.shape[-2:]))
            top, left = (max(0, (n - m) // 2) for n, m in zip(image.shape[-2:], (height, width), strict=True))
            inside = image[..., top : top + height, left : left + width]
            watch.look(inside.float().cpu(), state.step.parameters[best][None].cpu())

        return restoration.run(self.prior, self.denoiser, self.device, progress=progress, on_step=look)


def _half(progress: Progress, prefix: str, number: int) -> Callable[[str, int, int], None]:
    """Reports the first (0) or the second (1) of two runs as a half of both."""
    return lambda stage, done, total: progress(prefix + stage, number * total + done, 2 * total)
