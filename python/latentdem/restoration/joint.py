"""One image from several registered photographs of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext.vae import Window, blend_tiles

from ..metrics import best_shift
from ..operators.blur import pad_kernel, shifted
from ..operators.burst import BurstBlur
from ..priors.base import LatentPrior
from ..priors.kernel_refiner import shipped_refiner
from ..search.gradient_refine import kernels_from_images
from ..search.layout import Layout
from ..solver.frame import interior_mask, intersection
from ..solver.latentdem import LatentDEM
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, Progress, WorkCounter, run_passes
from ..solver.state import TraceStep
from .config import KnownKernelConfig
from .settings import Settings

_DRIFT = 4  # pixels by which the centre of a kernel may change when it is estimated again


@dataclass
class JointRestoration:
    """The restoration of one image from registered photographs of it, each with a kernel of its own.

    The image that explains all of them best is restored by an E-step that sums their likelihoods (`BurstBlur`).
    From a first such image, which has fewer artefacts than any restoration of one photograph, the kernels are
    estimated again, and the image is restored with them.

    Attributes:
        prior: latent diffusion prior.
        frames: F photographs, with a mask each (F, 1, H, W), on the device of the prior.
        settings: what the user chose.
        progress: called as progress(stage, done, total).
        trace: the steps of the last restoration.
    """

    prior: LatentPrior
    frames: Measurement
    settings: Settings
    progress: Progress
    trace: list[TraceStep] = field(default_factory=list)

    def run(self, kernels: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """The image (1, 3, H, W) and kernels (F, 1, K, K).

        Args:
            kernels: (F, 1, K, K) those found from each frame by itself.
            residual: (F,) root mean square of what they leave of each frame. A frame whose kernel is wrong
                counts less in the first image.
        """
        kernels = pad_kernel(kernels, kernels.shape[-1] + 1 - kernels.shape[-1] % 2)
        layout = Layout.of(self.frames, kernels.shape[-1])
        config = self.settings.config()
        first, last = (
            one.known if layout.fits else one.tiles
            for one in (replace(self.settings, quality="fast").config(), config)
        )
        work = layout.grids[1] * (first.steps() + last.steps())
        counter = WorkCounter(work, self.progress)
        noise = self.frames.sigma.square()
        image = self._image(kernels, residual.square().maximum(noise), layout, first, counter)
        kernels = self._estimated(image, kernels)
        variance = self.residuals(image, kernels).maximum(noise)
        image = self._image(kernels, variance, layout, last, counter)
        counter.finish("restoration")
        return image, kernels

    def residuals(self, image: Tensor, kernels: Tensor) -> Tensor:
        """Mean square (F,) of y_f - k_f * x where the blur of a frame sees only pixels of the image."""
        inside = interior_mask(*self.frames.size, kernels.shape[-1], image.device)
        mask = intersection(inside, self.frames.mask)
        assert mask is not None
        gap = (self.frames.y - self._blurred(image, kernels)).square().mean(1, keepdim=True) * mask
        return gap.sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)

    def _blurred(self, image: Tensor, kernels: Tensor) -> Tensor:
        return ext.blur(image.expand(len(kernels), -1, -1, -1).contiguous(), kernels)

    def _estimated(self, image: Tensor, kernels: Tensor) -> Tensor:
        """Kernels (F, 1, K, K) from the gradients of the image, as a network corrects them."""
        images, size = image.expand(len(kernels), -1, -1, -1).contiguous(), kernels.shape[-1]
        found = kernels_from_images(self.frames, images, size)
        # They are centred, but where the centre lies is known from the image that the frames share.
        blurred = self._blurred(image, found)
        placed = [
            shifted(kernel, *best_shift(one, y, _DRIFT, size // 2 + _DRIFT))
            for kernel, one, y in zip(found, blurred, self.frames.y, strict=True)
        ]
        found = ext.project_kernel(torch.stack(placed))
        return shipped_refiner(image.device).refined(found, self.frames.sigma)

    def _image(
        self, kernels: Tensor, variance: Tensor, layout: Layout, config: KnownKernelConfig, counter: WorkCounter
    ) -> Tensor:
        """The image (1, 3, H, W) that explains the frames, `variance` (F,) being what their kernels leave."""
        least = variance.min()
        weight = (least / variance).sqrt()
        self.trace = []

        def restored(y: Tensor, window: Window | None) -> Tensor:
            part, frame = self.frames, layout.frame
            if window is not None:
                part, frame = part.window(*window), layout.frame_of_part(*y.shape[-2:])
            padded = frame.extend(part)
            assert padded.mask is not None
            operator = BurstBlur(padded.mask.expand(len(weight), -1, -1, -1), weight)
            candidates = run_passes(
                LatentDEM(
                    self.prior, operator, config.e_step, skip=config.skip, num_samples=config.num_samples
                ),
                config.passes,
                Measurement(operator.stacked(padded.y), least.sqrt()[None]),
                kernels[:, 0][None],
                torch.Generator(y.device).manual_seed(self.settings.seed),
                consistency=config.consistency,
                stage="restoration",
                hooks=Hooks(counter),
            )
            self.trace = candidates.trace if window is None else []
            return frame.crop(candidates.image)

        if layout.fits:
            return restored(self.frames.y[:1], None)
        return blend_tiles(self.frames.y[:1], restored, layout.tile_size, layout.overlap)
