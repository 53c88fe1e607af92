"""From a measurement of any size to image and kernel: lattice, window, search, tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from latentdem_ext.vae import Window, blend_tiles, tile_windows

from ..errors import UserError
from ..operators.blur import Blur
from ..priors.base import LatentPrior
from ..solver.checkpoint import Checkpoint
from ..solver.data_weight import DataWeight, MaximumLikelihood, MostCautious
from ..solver.e_step import EStep, Proximal
from ..solver.latentdem import LatentDEM
from ..solver.passes import NO_HOOKS, Candidates, Hooks, Pass, full_steps, join, run_passes
from ..solver.schedules import EVERY_STEP, Skip
from ..solver.state import State, TraceStep
from .boundary import Frame
from .tiles import informative_window

WORKING_SIZE = 384  # pixels a side: what needs a larger lattice is restored in tiles
LATTICE_MULTIPLE = 32  # of extended lattices: small factors for FFTs, whole latents at half size
SEARCH_SIZE = 256  # pixels a side of the window that a larger photograph's kernel is found on

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class KnownKernelConfig:
    """How an image is restored once its kernel is known, or found.

    Attributes:
        passes: passes of the reverse diffusion.
        e_step: E-step of every one.
        skip: which steps are full ones.
        num_samples: posterior samples; the image is their mean, which is nearer to the truth than each.
        consistency: of the pixel-space step after each pass, see `run_passes`.
    """

    passes: tuple[Pass, ...] = (Pass(30),)
    e_step: EStep = Proximal(MaximumLikelihood())
    skip: Skip = EVERY_STEP
    num_samples: int = 4
    consistency: DataWeight = MaximumLikelihood()

    def cautious(self) -> KnownKernelConfig:
        """The same for a kernel that was found and may be wrong: its measured modelling error counts too."""
        data_weight = MostCautious()
        e_step = (
            replace(self.e_step, data_weight=data_weight) if isinstance(self.e_step, Proximal) else self.e_step
        )
        return replace(self, e_step=e_step, consistency=data_weight)

    def steps(self) -> int:
        """Full EM steps of all samples."""
        return full_steps(self.passes, self.skip) * self.num_samples


class KernelSearch(Protocol):
    """What finds the kernel of measurements on their lattice, such as `BlindSearch`.

    Attributes:
        prior: latent diffusion prior.
        operator: makes the operator from kernel size, denoiser, settings of the M-step and mask.
        cautious: whether the kernel may be so wrong that the image must be restored with care.
    """

    prior: LatentPrior
    operator: Callable[..., Blur]
    cautious: bool

    def work(self, height: int, width: int, kernel_size: int) -> int: ...

    def __call__(
        self,
        y: Tensor,
        kernel_size: int,
        noise_sigma: Tensor,
        generator: torch.Generator,
        mask: Tensor | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> Candidates: ...


@dataclass
class ImageRestoration:
    """One job; `run` does it.

    Attributes:
        search: finds the kernel.
        known: restores the image with it.
        again: whether the image is restored anew after the search, or the search's own image is the result.
        kernel_size: K.
        seed: of all randomness.
        circular: whether the blur wraps around; otherwise the lattice is extended beyond the frame.
        progress: called as progress(stage, done, total), in pixels that full EM steps have gone through.
        on_step: called with the solver's state after every full EM step, which may be changed.
        checkpoint: where the run is kept, to be resumed.
        latents: (B S, c, h, w) noise that the restoration with a known kernel starts from; None draws it.
        mask: (1, 1, H, W), 1 where the measurement counts; None for everywhere.
        seconds: wall-clock seconds per phase, filled by `run`.
    """

    search: KernelSearch
    known: KnownKernelConfig
    again: bool
    kernel_size: int
    seed: int
    circular: bool
    progress: Progress | None = None
    on_step: Callable[[State], None] | None = None
    checkpoint: Checkpoint | None = None
    latents: Tensor | None = None
    mask: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._done = self._total = 0
        self._hooks = Hooks(self._work_done, self.on_step, self.checkpoint)

    def run(self, y: Tensor, sigma: Tensor, kernel: Tensor | None) -> Candidates:
        """Restores measurements of one size, one candidate each.

        Args:
            y: (B, 3, H, W) in [-1, 1]; sigma: (B,); kernel: (B, 1, K, K) when it is known.

        Returns:
            Images (B, 3, H, W), kernels, residuals over the measured pixels and the steps of the search (with a
            known kernel those of the restoration; the steps of tiles are left out).

        Raises:
            UserError: latents to start from where the kernel is sought or the image restored in tiles.
        """
        height, width = y.shape[-2:]
        frame = self._frame(height, width)
        if self.latents is not None and (kernel is None or not self._fits(frame)):
            raise UserError(
                "Latents to start from have a meaning only with a known kernel and an image that is restored "
                "as a whole; leave them out, or give the kernel and a smaller image."
            )
        self._done, self._total = 0, self._work(height, width, len(y), kernel is None)
        if self._fits(frame):
            found = self._whole(y, sigma, kernel, frame, self.mask)
        else:
            rows = [slice(i, i + 1) for i in range(len(y))]
            found = join([self._large(y[i], sigma[i], None if kernel is None else kernel[i]) for i in rows])
        inside = interior_mask(height, width, 1 if self.circular else self.kernel_size, y.device)
        operator = Blur(self.kernel_size, mask=_both(inside, self.mask))
        return replace(found, residual=operator.residual(found.image, found.parameters, y))

    @staticmethod
    def _fits(frame: Frame) -> bool:
        return max(frame.lattice) <= WORKING_SIZE

    def _frame(self, height: int, width: int) -> Frame:
        if self.circular:
            return Frame.circular(height, width)
        return self._part_frame(height, width)

    def _whole(
        self, y: Tensor, sigma: Tensor, kernel: Tensor | None, frame: Frame, mask: Tensor | None
    ) -> Candidates:
        if kernel is not None:
            return self._known(y, sigma, kernel, frame, self.known, mask)
        found = self._blind(y, sigma, frame, mask)
        if not self.again:
            return found
        known = self._known(y, sigma, found.parameters, frame, self._found, mask)
        return replace(known, trace=found.trace)

    def _blind(self, y: Tensor, sigma: Tensor, frame: Frame, mask: Tensor | None) -> Candidates:
        """Image and kernel of a measurement that fits, the image cropped to it."""
        with self._phase("kernel search"):
            mask = _counting(frame, mask, y.device)
            found = self.search(frame.place(y), self.kernel_size, sigma, self._generator(y), mask, self._hooks)
        return replace(found, image=frame.crop(found.image))

    def _known(
        self,
        y: Tensor,
        sigma: Tensor,
        kernel: Tensor,
        frame: Frame,
        known: KnownKernelConfig,
        mask: Tensor | None,
    ) -> Candidates:
        """Image of a measurement that fits, its kernel known."""
        operator = self.search.operator(self.kernel_size, mask=_counting(frame, mask, y.device), fixed=True)
        solver = LatentDEM(
            self.search.prior, operator, known.e_step, skip=known.skip, num_samples=known.num_samples
        )
        with self._phase("restoration"):
            found = run_passes(
                solver,
                operator,
                known.passes,
                frame.place(y),
                kernel,
                sigma,
                self._generator(y),
                consistency=known.consistency,
                latents=self.latents,
                stage="restoration",
                hooks=self._hooks,
            )
        return replace(found, image=frame.crop(found.image))

    def _large(self, y: Tensor, sigma: Tensor, kernel: Tensor | None) -> Candidates:
        """One photograph (1, 3, H, W) that does not fit: kernel from a window, image in tiles.

        A window or tile is no circle even of a photograph that is one.
        """
        trace: list[TraceStep] = []
        known = self.known
        if kernel is None:
            rows, columns = informative_window(y, self._search_size, self.kernel_size)
            part = y[..., rows, columns]
            shown = None if self.mask is None else self.mask[..., rows, columns]
            found = self._blind(part, sigma, self._part_frame(*part.shape[-2:]), shown)
            kernel, trace, known = found.parameters, found.trace, self._found

        def restore(tile: Tensor, window: Window) -> Tensor:
            frame = self._part_frame(*tile.shape[-2:])
            shown = None if self.mask is None else self.mask[..., window[0], window[1]]
            return self._known(tile, sigma, kernel, frame, known, shown).image

        image = blend_tiles(y, restore, self._tile_size, self._overlap)
        return Candidates(image, kernel, torch.zeros_like(sigma), torch.zeros_like(sigma), trace)

    def _part_frame(self, rows: int, columns: int) -> Frame:
        return Frame.extended(rows, columns, self.kernel_size, LATTICE_MULTIPLE)

    @property
    def _found(self) -> KnownKernelConfig:
        """How the image is restored with a kernel that was found."""
        return self.known.cautious() if self.search.cautious else self.known

    @property
    def _tile_size(self) -> int:
        """Pixels a side of the tiles whose lattice is of the working size."""
        return max(WORKING_SIZE - self.kernel_size + 1, 2 * self.kernel_size)

    @property
    def _search_size(self) -> int:
        return max(SEARCH_SIZE, 2 * self.kernel_size)

    @property
    def _overlap(self) -> int:
        return self._tile_size // 6

    def _work(self, height: int, width: int, batch: int, blind: bool) -> int:
        """Pixels that all full EM steps of the job go through."""
        steps = self.known.steps()
        frame = self._frame(height, width)
        if self._fits(frame):
            each = self.search.work(*frame.lattice, self.kernel_size) if blind else 0
            return batch * (each + (frame.pixels * steps if self.again or not blind else 0))
        total = 0
        if blind:
            window = self._part_frame(*(min(self._search_size, n) for n in (height, width)))
            total += self.search.work(*window.lattice, self.kernel_size)
        for rows, columns in tile_windows(height, width, self._tile_size, self._overlap):
            total += steps * self._part_frame(rows.stop - rows.start, columns.stop - columns.start).pixels
        return batch * total

    def _generator(self, y: Tensor) -> torch.Generator:
        return torch.Generator(y.device).manual_seed(self.seed)

    def _work_done(self, stage: str, pixels: int) -> None:
        self._done += pixels
        if self.progress is not None:
            self.progress(stage, min(self._done, self._total), self._total)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _counting(frame: Frame, mask: Tensor | None, device: torch.device) -> Tensor | None:
    """What counts on the lattice of `frame`: the measured pixels, and of them those of `mask`."""
    return _both(frame.mask(device), None if mask is None else frame.place(mask))


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a * b


def interior_mask(height: int, width: int, kernel_size: int, device: torch.device) -> Tensor | None:
    """(1, 1, H, W), 1 where a K x K blur sees only pixels of the image; None for K = 1."""
    if kernel_size == 1:
        return None
    mask = torch.zeros(1, 1, height, width, device=device)
    after = kernel_size // 2
    before = kernel_size - 1 - after
    # Pixel n of k * x takes x[n - (m - K // 2)], from n - before to n + after.
    mask[..., before : height - after, before : width - after] = 1.0
    return mask
