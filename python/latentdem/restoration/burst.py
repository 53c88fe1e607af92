"""Several photographs of one scene, blurred differently, to one image."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace

import torch
from skimage.transform import EuclideanTransform
from torch import Tensor

from ..errors import UserError
from ..io.channels import from_rgb, to_rgb
from ..output.result import Restored, Result
from ..priors.base import LatentPrior
from ..priors.kernel_denoiser import KernelDenoiser
from ..priors.prior_names import name_of
from ..search.gradient_score import kernel_radius
from ..solver.frame import filled
from ..solver.measurement import Measurement
from ..solver.passes import Progress
from .data_range import DataRange
from .examination import Examination
from .image import ImageRestoration
from .joint import JointRestoration
from .registration import central_motion, motion_between, moved_back, moved_mask
from .settings import Settings

_ALONE = 7, 10  # share of the time in which each photograph is restored by itself


@dataclass
class BurstRestoration:
    """The restoration of one scene from several photographs of it, each with a blur of its own.

    Each photograph is restored by itself first, in a few steps. The one with the narrowest blur is the
    reference, as the best should not be resampled. The restorations say how the others lie beside it, and they
    are moved there. `JointRestoration` does the rest.

    Attributes:
        photographs: (F, C, H, W) float32 in [-1, 1], C = 1 or 3, on the CPU.
        settings: what the user chose; there is no periodic boundary.
        mask: (1 or F, 1, H, W), 1 where the photographs count; None for everywhere.

    Raises:
        UserError: there are less than two photographs, or a value is wrong.
    """

    photographs: Tensor
    settings: Settings = Settings()
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.photographs) < 2:
            raise UserError("A burst has two photographs or more; restore a single one with deblur.")
        self.settings, _ = self.settings.for_images(self.photographs, None)
        self.settings = replace(self.settings, boundary="valid")

    def run(
        self,
        prior: LatentPrior,
        denoiser: KernelDenoiser,
        device: torch.device,
        *,
        progress: Progress | None = None,
    ) -> Restored:
        """Restores the scene on `device`, as the reference shows it.

        Args:
            prior: latent diffusion prior, on `device`.
            denoiser: kernel denoiser, on `device`.
            progress: called as progress(stage, done, total).

        Raises:
            UserError: no kernel explains any photograph, or one cannot be registered.
        """
        started = time.perf_counter()
        photographs = self.photographs
        stretch = DataRange.of(photographs.transpose(0, 1).flatten(1, 2)[None])  # one for all
        y = stretch.stretched(photographs)
        share, whole = _ALONE

        def alone(stage: str, done: int, total: int) -> None:
            if progress is not None:
                progress(stage, share * done, whole * total)

        def jointly(stage: str, done: int, total: int) -> None:
            if progress is not None:
                progress(stage, share * total + (whole - share) * done, whole * total)

        noise = self.settings.noise_sigma
        quick = replace(self.settings, quality="fast", noise_sigma=noise and noise / float(stretch.scale))
        single = ImageRestoration(y, quick, mask=self.mask).run(prior, denoiser, device, progress=alone)
        used = [f for f, explained in enumerate(single.explained.tolist()) if explained]
        if not used:
            raise UserError(
                "No kernel was found that explains any of the photographs, so that there is nothing to join; "
                "look at what deblur says of each of them, or give another kernel size."
            )
        for f in set(range(len(y))) - set(used):
            warnings.warn(
                f"Photograph {f + 1} of the burst is left out: no kernel was found that explains it.",
                UserWarning,
                stacklevel=2,
            )
        radius = kernel_radius(single.kernel).tolist()
        used.sort(key=lambda f: radius[f])
        used[1:] = sorted(used[1:])
        motions = self._motions(single, used)
        examined = Examination.of(y, self.mask)
        frames = _registered(y, examined.mask, single, motions).to(device)
        joint = JointRestoration(prior, frames, self.settings, jointly)
        joining = time.perf_counter()
        image, kernels = joint.run(single.kernel[used].to(device), single.residual[used].to(device))
        done = time.perf_counter()
        kept, original = used[0], examined.original
        tensor = stretch.restored(from_rgb(image, y.shape[1]).cpu())
        if original is not None:
            tensor = torch.where(original[kept : kept + 1], photographs[kept : kept + 1], tensor)
        scale = stretch.scale
        centres = [central_motion(motion, *y.shape[-2:]) for motion in motions.values()]
        return Restored(
            tensor,
            {
                "kernels": kernels.cpu()[:, 0][None],
                "rotation": torch.tensor([[rotation for rotation, _ in centres]]),
                "shift": torch.tensor([[shift for _, shift in centres]]),
            },
            photographs[kept : kept + 1],
            single.noise_sigma[kept : kept + 1] * scale,
            joint.residuals(image, kernels)[:1].sqrt().cpu() * scale,
            joint.trace,
            {**single.seconds, "joint restoration": done - joining, "total": done - started},
            {
                **self.settings.as_dict(kernel_known=False),
                "photographs": [f + 1 for f in used],
                "prior": name_of(prior),
                "device": str(device),
            },
        )

    def _motions(self, single: Result, used: list[int]) -> dict[int, EuclideanTransform]:
        """How each photograph lies beside the reference, by its number."""
        motions = {used[0]: EuclideanTransform()}
        for f in used[1:]:
            try:
                motions[f] = motion_between(single.tensor[f : f + 1], single.tensor[used[0] : used[0] + 1])
            except UserError as error:
                raise UserError(f"Photograph {f + 1}: {error}") from None
        return motions


def _registered(
    y: Tensor, mask: Tensor | None, single: Result, motions: dict[int, EuclideanTransform]
) -> Measurement:
    """The photographs as the reference would show them, with the noise of each and what its kernel leaves."""
    everywhere = torch.ones_like(y[:, :1]) if mask is None else mask.expand(len(y), -1, -1, -1)
    frames, masks = [], []
    for f, motion in motions.items():
        one, counts = y[f : f + 1], everywhere[f : f + 1]
        clean = one if bool(counts.all()) else torch.where(counts > 0, one, filled(one, counts))
        frames.append(moved_back(clean, motion))
        masks.append(moved_mask(counts, motion))
    return Measurement(to_rgb(torch.cat(frames)), single.noise_sigma[list(motions)], torch.cat(masks), False)
