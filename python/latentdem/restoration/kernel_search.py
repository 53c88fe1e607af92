"""The search for the kernels of photographs: which one, of which size, and in which part of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..output.result import SURE_LEAD
from ..priors.kernel_refiner import shipped_refiner
from ..search.blind import BlindSearch
from ..search.family import FamilySearch
from ..search.gradient_first import CAUTION, Found, GradientFirstSearch
from ..search.gradient_input import edge_window
from ..search.gradient_score import kernel_radius, turned_lead
from ..search.gradient_start import automatic_sizes
from ..search.layout import REGION_SIZE, Layout, informative_window
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, WorkBudget
from .unexplained import unexplained_share

_DEFAULT_SIZE = 64  # K of the paper, where none is given and the search does not find it
_SEEN = 3.0  # radius in pixels below which a coarse scale does not tell that a kernel is wider than the blur


@dataclass(frozen=True)
class KernelSearch:
    """The search for kernels.

    Attributes:
        search: the search on a padded grid.
        gradients: the search from gradients that comes first; None for none.
    """

    search: BlindSearch | FamilySearch
    gradients: GradientFirstSearch | None = None

    @property
    def cautious(self) -> bool:
        """Whether a kernel may be so wrong that the image must be restored with care."""
        return self.search.cautious

    @property
    def tried(self) -> bool:
        """Whether residual and variance of what is found are those of a trial, see `trial`."""
        return self.search.tried or self.gradients is not None

    def kernel_size(self, photographs: Measurement, given: int | None) -> tuple[int, bool]:
        """K, or its upper limit where the search finds it, and whether it does."""
        if given is not None:
            return given, False
        side = min(photographs.size)
        if self.gradients is not None:
            return automatic_sizes(side)[-1], True
        return min(_DEFAULT_SIZE, side), False

    def region(self, photographs: Measurement) -> Measurement:
        """The part of photographs that the search sees: all of them unless they are very large."""
        if self.gradients is None or max(photographs.size) <= REGION_SIZE:
            return photographs
        return photographs.window(*edge_window(photographs.y, REGION_SIZE, 1, photographs.mask))

    def work(self, layout: Layout) -> int:
        """Pixels that the full EM steps of the search of one photograph go through, if no more is needed."""
        if self.gradients is None:
            return self.search.work(*layout.grids[0], layout.kernel_size)
        seen = min(layout.height, REGION_SIZE) * min(layout.width, REGION_SIZE)
        return self.gradients.work(*layout.grids[0], seen)

    def __call__(self, photographs: Measurement, kernel_size: int, seed: int, hooks: Hooks) -> Found:
        """The most plausible kernels (B, 1, K, K); smaller than K if the size is unknown."""
        layout = Layout.of(photographs, kernel_size)
        images = len(photographs)
        budget = WorkBudget(images * self.work(layout), hooks)
        hooks = replace(hooks, on_work=budget, on_more=budget.extend)
        generator = torch.Generator(photographs.y.device).manual_seed(seed)
        if self.gradients is not None:
            first = self.gradients
            found = first(photographs, kernel_size, seed, hooks)
            noisy = first.noisy(photographs)
            if bool(noisy.any()):
                grid, moved = found.frame.extend(found.window), found.candidates
                for mover in first.movers:
                    size = moved.parameters.shape[-1]
                    budget.extend(images * mover.work(*grid.size, size))
                    moved = mover(grid, size, generator, hooks, moved)
                loss = first.config.moved_loss
                found = first.better(photographs, found, first.settled(moved), noisy, seed, hooks, loss)
            unexplained = ~first.explains(found)
            if first.shared:  # the blind search would find another kernel for each photograph
                unexplained = torch.zeros_like(unexplained)
            if bool(unexplained.any()):
                # Where the prior knows too little, as of text, the gradients may be sure.
                unexplained &= turned_lead(photographs, found.candidates.parameters) < SURE_LEAD
            if bool(unexplained.any()):
                size, grid = first.blind_grid(photographs, kernel_size)
                budget.extend(images * first.search.work(*grid.size, size))
                searched = first.search(grid, size, generator, hooks)
                found = first.better(photographs, found, searched, unexplained, seed, hooks)
        else:
            window, frame = photographs, layout.frame
            if not layout.fits:
                window = photographs.window(*informative_window(photographs.y, layout.search_size, kernel_size))
                frame = layout.frame_of_part(*window.size)
            found = Found(self.search(frame.extend(window), kernel_size, generator, hooks), window, frame)
        budget.spend("kernel search")
        return found if self.gradients is None else _corrected(found, self.gradients.shared)


def _corrected(found: Found, shared: bool = False) -> Found:
    """The same with kernels that a network has corrected; the trial is that of the kernels before.

    The network knows the errors of estimates from photographs that are blurred as the model says. The more of
    a photograph the model leaves unexplained, the less its correction counts. A `shared` kernel becomes the
    mean of what it would be for each photograph.
    """
    kernels, device = found.candidates.parameters, found.window.y.device
    counts = 1 - torch.as_tensor(found.caution, device=device).expand(len(kernels)).view(-1, 1, 1, 1) / CAUTION
    refined = shipped_refiner(device).refined(kernels, found.window.sigma)
    corrected = torch.lerp(kernels, refined, counts)
    if shared:
        corrected = corrected.mean(0, keepdim=True).repeat(len(kernels), 1, 1, 1)
    return replace(found, candidates=replace(found.candidates, parameters=corrected))


def checked(photographs: Measurement, found: Found) -> dict[str, Tensor]:
    """What tells whether the kernels of a search with trials are right: attributes of `Result`, (B,) each."""
    kernels = found.candidates.parameters
    checks = {"unexplained": unexplained_share(found.window, found.candidates)}
    if found.radius is not None:
        checks["coverage"] = coverage(kernels, found.radius)
        checks["lead"] = turned_lead(photographs, kernels)
    return checks


def coverage(kernels: Tensor, radius: Tensor) -> Tensor:
    """Radius (B,) of kernels (B, 1, K, K) in units of that of the blur, between the `radius` (B, 2) in pixels.

    It is 1 for a kernel between both, and 1 at most for one with a radius below 3 pixels: a coarse scale sees
    too little of such a blur.
    """
    own = kernel_radius(kernels)
    nearest = own.maximum(radius[:, 0]).minimum(radius[:, 1])
    share = own / nearest.clamp_min(1e-3)
    return torch.where(own < _SEEN, share.clamp_max(1), share)
