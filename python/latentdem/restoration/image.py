"""From photographs of any size to images and kernels: noise level, boundary, kernel search, tiles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from latentdem_ext import project_kernel, record_backends
from latentdem_ext.vae import blend_tiles

from ..checks import check_backend
from ..errors import UserError
from ..io.channels import from_rgb
from ..io.scratch import zeros
from ..operators import Blur, KernelFamily, LinearLightBlur, SharedBlur
from ..operators.blur import crop_kernel, pad_kernel, support_size
from ..output.result import Result
from ..priors.base import LatentPrior
from ..priors.kernel_denoiser import KernelDenoiser
from ..priors.prior_names import name_of
from ..search.blind import BlindSearch
from ..search.family import FamilySearch
from ..search.gradient_first import CAUTION, GradientFirstSearch
from ..search.layout import Layout
from ..solver.checkpoint import Checkpoint
from ..solver.passes import Candidates, Hooks, Progress, WorkCounter, join
from ..solver.state import State
from .config import KnownKernelConfig, RestorationConfig
from .examination import Examination
from .kernel_search import KernelSearch, checked
from .known_kernel import KnownKernelRestorer
from .recording import Recording, wraps_around
from .settings import Settings
from .uncertainty import uncertainty
from .varying import FieldFound, find_field, joined_fields, search_work

_log = logging.getLogger(__name__)


@dataclass
class ImageRestoration:
    """The restoration of blurred photographs of one size; `run` does it with a prior.

    Attributes:
        y: (B, C, H, W) float32 photographs in [-1, 1], C = 1 or 3, on the CPU.
        settings: what the user chose; `kernel_size` becomes that of a given kernel.
        kernel: (1 or B, 1, K, K) the true kernel; None to search for it.
        mask: (1 or B, 1, H, W), 1 where the photographs count; None for everywhere.
        operator: makes the operator, see `BlindSearch`; with a `gamma` other than 1, `LinearLightBlur` in place
            of the default.
        cautious: whether the measured modelling error counts although the kernel is given.
        examine: whether the photographs' own range and the pixels that no blur explains are looked for.
        sigma: (B,) standard deviation of the noise of each photograph, in place of that of the settings.
        config: constants; None for those that belong to the settings.

    Raises:
        UserError: a value is wrong; the message says which and what to do.
    """

    y: Tensor
    settings: Settings = Settings()
    kernel: Tensor | None = None
    mask: Tensor | None = None
    operator: Callable[..., Blur] = Blur
    cautious: bool = False
    examine: bool = True
    config: RestorationConfig | None = None
    sigma: Tensor | None = None

    def __post_init__(self) -> None:
        self.settings, self.kernel = self.settings.for_images(self.y, self.kernel)
        if self.settings.gamma != 1 and self.operator is not Blur:
            raise UserError("A tone curve belongs to the operator 'blur' alone; leave gamma at 1.")

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
    ) -> Result:
        """Restores the photographs on `device`.

        Args:
            prior: latent diffusion prior, on `device`.
            denoiser: kernel denoiser, on `device`; or the family of the kernel.
            progress: called as progress(stage, done, total), in pixels that full EM steps have gone through.
            on_step: called with the solver's state after every full EM step; it may change the state.
            checkpoint: where the run is saved, so that it can be resumed.
            latents: (B S, c, h, w) noise that a restoration with a known kernel starts from; None draws it.

        Raises:
            UserError: latents to start from where the kernel is unknown or the image is restored in tiles.
        """
        started, backend = time.perf_counter(), check_backend()
        examined = (Examination.of if self.examine else Examination.none)(self.y, self.mask)
        if self.settings.same_kernel and examined.mask is not None:
            examined = replace(examined, mask=examined.mask.amin(0, keepdim=True))
        circular = wraps_around(self.y, self.settings)
        recording = Recording.of(examined, self.settings, circular, self.sigma, self.kernel)
        measurement = recording.measurement.to(device)
        config = self.config or self.settings.config()
        kernel = None if self.kernel is None else self.kernel.to(device)
        operator = self.operator
        if recording.curve is not None:
            operator = partial(LinearLightBlur, curve=recording.curve)
        elif self.settings.same_kernel:
            operator = SharedBlur
        search, blind = self._search(prior, denoiser, config, operator), self.kernel is None
        varying = self.settings.blur == "varying"
        size, automatic = search.kernel_size(measurement, self.settings.kernel_size)
        edges = "blur that wraps around" if measurement.circular else "blur that does not wrap around"
        noise = ", ".join(f"{sigma:.4f}" for sigma in measurement.sigma.tolist())
        _log.info("Noise %s, kernel size %s%d, %s.", noise, "up to " if automatic else "", size, edges)
        layout = Layout(*measurement.size, size, measurement.circular, varying)
        if latents is not None and (blind or not layout.fits):
            raise UserError(
                "Latents to start from have a meaning only with a known kernel and an image that is restored "
                "as a whole; leave them out, or give the kernel and a smaller image."
            )
        total = len(measurement) * self._work(layout, config, search if blind else None)
        counter = WorkCounter(total, progress)
        hooks = Hooks(counter, counter.extend, on_step, checkpoint)
        results: list[Candidates] = []
        checks: list[dict[str, Tensor]] = []
        kernel_spreads: list[Tensor] = []
        fields: list[FieldFound] = []
        seconds: dict[str, float] = {}
        with record_backends() as operations:
            same_mask = measurement.mask is None or len(measurement.mask) == 1
            together = layout.fits and same_mask and not automatic and not varying
            together |= self.settings.same_kernel
            for rows in [slice(None)] if together else [slice(i, i + 1) for i in range(len(measurement))]:
                part, candidates, final = measurement.rows(rows), None, layout
                caution: float | Tensor | None = 1.0 if self.cautious else None
                if varying:
                    with _timed(seconds, "kernel search"):
                        fields.append(find_field(part, self.settings.kernel_size, size, hooks))
                    kernels, caution = fields[-1].middle, CAUTION
                    final = replace(layout, kernel_size=kernels.shape[-1])
                elif kernel is None:
                    with _timed(seconds, "kernel search"):
                        region = search.region(part)
                        found = search(region, size, self.settings.seed, hooks)
                    candidates, kernels = found.candidates, found.candidates.parameters
                    caution = found.caution if search.cautious else caution
                    if search.tried:
                        checks.append(checked(region, found))
                    if layout.fits and not config.again:
                        image = found.frame.crop(candidates.image)
                        residual = recording.residual(image, kernels, part)
                        results.append(replace(candidates, image=image, residual=residual))
                        continue
                    if automatic:
                        kernels = project_kernel(crop_kernel(kernels, support_size(kernels)))
                        final = Layout.of(part, kernels.shape[-1])
                else:
                    kernels = kernel[rows]
                start = latents
                if latents is not None and not together:
                    start = latents.unflatten(0, (len(measurement), -1))[rows].flatten(0, 1)
                known = self._known(config, final, caution)
                restore = KnownKernelRestorer(
                    prior, operator, known, self.settings.seed, final, hooks, start, part, kernels
                )
                restore.varying = fields[-1].field if varying else None
                restore.spread = self.settings.num_samples > 1 and checkpoint is None
                if blind and not varying and isinstance(denoiser, KernelDenoiser):
                    hqs = config.search.fine[-1].hqs
                    restore.search_operator = partial(operator, final.kernel_size, denoiser.denoise, hqs)
                with _timed(seconds, "restoration"):
                    if final.fits:
                        image = restore(part.y, None)
                    else:
                        image = blend_tiles(part.y, restore, final.tile_size, final.overlap, zeros=zeros)
                image, spread = image[:, :3], image[:, 3:] if restore.spread else None
                if restore.kernel_spreads:
                    kernel_spreads.append(pad_kernel(torch.stack(restore.kernel_spreads).mean(0), size))
                if candidates is not None:
                    trace, variance = candidates.trace, candidates.variance
                else:  # the steps of tiles are left out
                    trace = restore.trace if final.fits else []
                    variance = torch.stack(restore.variances).mean(0)
                if varying:
                    residual = torch.stack(restore.residuals).mean(0)
                    checks.append(fields[-1].checked(part, residual, variance))
                else:
                    residual = recording.residual(image, kernels, part)
                evidence = torch.zeros_like(residual)
                results.append(Candidates(image, kernels, residual, evidence, variance, trace, spread))
        counter.finish("restoration")
        restored = join(_same_size(results))
        result = self._result(restored, examined, recording)
        for name in checks[0] if checks else ():
            setattr(result, name, torch.cat([one[name] for one in checks]).cpu())
        if restored.spread is not None:
            sigma = recording.measurement.sigma / recording.slope
            result.uncertainty = uncertainty(restored.spread, sigma, examined.data_range.scale)
        if fields:
            result.kernel_field = joined_fields(fields).cpu()
        if kernel_spreads:
            result.kernel_uncertainty = torch.cat(kernel_spreads).cpu()
        result.seconds.update(seconds, total=time.perf_counter() - started)
        result.settings.update(
            prior=name_of(prior),
            device=str(device),
            backend=backend,
            operations={name: ", ".join(used) for name, used in sorted(operations.items())},
        )
        return result

    def _search(
        self,
        prior: LatentPrior,
        denoiser: KernelDenoiser | KernelFamily,
        config: RestorationConfig,
        operator: Callable[..., Blur],
    ) -> KernelSearch:
        if isinstance(denoiser, KernelFamily):
            return KernelSearch(FamilySearch(prior, denoiser, operator))
        samples = self.settings.num_samples
        search = BlindSearch(prior, denoiser, config.search, config.e_step, config.skip, samples, operator)
        if config.gradients is None:
            return KernelSearch(search)
        automatic, shared = self.settings.kernel_size is None, self.settings.same_kernel
        return KernelSearch(search, GradientFirstSearch(search, config.gradients, automatic, shared))

    def _known(
        self, config: RestorationConfig, layout: Layout, caution: float | Tensor | None = None
    ) -> KnownKernelConfig:
        """How the photographs are restored with a kernel; `caution` is None for the true one."""
        known = config.known if layout.fits else config.tiles
        known = replace(known, num_samples=max(known.num_samples, self.settings.num_samples))
        return known if caution is None else known.cautious(caution)

    def _work(self, layout: Layout, config: RestorationConfig, search: KernelSearch | None) -> int:
        """Pixels that the full EM steps of one photograph go through, as far as it is known before."""
        total = 0
        if search is not None:
            total = search_work(layout) if layout.varying else search.work(layout)
        if search is None or config.again or not layout.fits:
            layouts = [layout]
            if search is not None and self.settings.kernel_size is None:
                layouts.append(replace(layout, kernel_size=1))  # the kernel may be smaller
            total += max(one.grids[1] * self._known(config, one).steps() for one in layouts)
        return total

    def _result(self, restored: Candidates, examined: Examination, recording: Recording) -> Result:
        """What the caller gets, in the range and the channels of the photographs."""
        measurement, kernel = recording.measurement, restored.parameters.cpu()
        scale = examined.data_range.scale / recording.slope
        return Result(
            tensor=examined.restored(from_rgb(restored.image, self.y.shape[1]).cpu(), self.y, kernel),
            kernel=kernel,
            blurred=self.y,
            noise_sigma=measurement.sigma.cpu() * scale,
            residual=restored.residual.cpu() * scale,
            trace=[replace(step, residual=step.residual.cpu() * scale) for step in restored.trace],
            model_error=restored.variance.sqrt().cpu() * scale,
            settings={
                **self.settings.as_dict(kernel_known=self.kernel is not None),
                "boundary": "circular" if measurement.circular else "valid",
                "gamma": recording.gamma,
            },
        )


def _same_size(results: list[Candidates]) -> list[Candidates]:
    """Results with kernels of the size of the largest, and without traces that cannot be joined."""
    size = max(result.parameters.shape[-1] for result in results)
    same = len({tuple((step.stage, step.t) for step in result.trace) for result in results}) == 1
    return [
        replace(
            result,
            parameters=pad_kernel(result.parameters, size),
            trace=[
                replace(step, parameters=pad_kernel(step.parameters, size)) for step in result.trace if same
            ],
        )
        for result in results
    ]


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the time of the block to that of the phase."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - started
