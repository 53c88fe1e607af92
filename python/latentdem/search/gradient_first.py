"""The default search: kernels from the gradients of a photograph first, the blind search where they fail."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import latentdem_ext as ext

from ..operators.blur import HQS, crop_kernel, pad_kernel, support_size
from ..solver.frame import Frame
from ..solver.measurement import Measurement
from ..solver.passes import NO_HOOKS, Candidates, Hooks, Pass, run_passes
from .blind import BlindSearch
from .config import Round, SearchConfig, Start
from .gradient_input import edge_window
from .gradient_refine import kernels_from_images
from .gradient_start import PARTS, Starts, automatic_sizes, shared_starts, sizes_around, starts_for
from .layout import Layout
from .selection import merged_kernels, most_plausible, together
from .trials import TRIAL_STEPS, trial

_LARGEST_SEARCHED = 64  # K of the blind search where the kernel size is unknown
CAUTION = 2.0  # factor of the modelling error in the restoration of a capture
_FULL = 0.25  # share of the variance beyond the noise from which it is full, the least that `most_likely` tells
_START_STEPS, _START_PIXELS = 30, 512 * 512  # see `_start_steps`
_SETTLED = 0.98  # normalised correlation from which two kernels of one pass are averaged
_ROOM = 4  # pixels around the support of an estimated kernel, for its refinement


def _em(steps: Pass, level: float, hqs: HQS) -> SearchConfig:
    """One pass at full size from one kernel."""
    return SearchConfig(
        starts=(Start(0.3, level, modelling_error=5.0),),
        coarse=(Round((steps,), hqs),),
        fine=(),
        largest_kernel=10**6,
        halved_kernel=10**6,
    )


@dataclass(frozen=True)
class GradientFirst:
    """Constants of `GradientFirstSearch`.

    Attributes:
        tried: kernels of the gradient-based start that are tried, besides the first one turned by 180 degrees.
        score_margin: kernels whose score is worse than the best one by more are not tried.
        noisy_margin: the same where noise hides fine gradients, which makes scores alike.
        score_weight: of the scores beside the evidence.
        spread_weight: of the entropies of the kernels beside the evidence. A part of the true kernel leaves a
            picture that is still blurred, which is easier to predict than a sharp one, so that the evidence
            may prefer it.
        explained: residual of a trial, in units of the noise, up to which its kernel needs no search.
        refined: best kernels that are estimated again from the images of their trials.
        rounds: how often.
        refinement_bonus: how much evidence a kernel may lose in a round of refinement. The image is
            nearer to the truth with it, which the evidence, blind to small differences, does not show.
        low_noise: standard deviation of the noise, in units of [-1, 1], above which it hides fine gradients,
            and M-steps improve the kernels that they give.
        moved: how these M-steps are made, one search after the other: on intensities, which lead away from a
            wrong kernel and determine one from a smooth picture too, then on gradients, which do not weigh the
            few low frequencies most, where the images of the prior are wrong.
        averaged: steps at the end of EM whose kernels are averaged, as far as they agree.
        moved_loss: how much evidence a kernel may lose by them.
        least_sigma: least noise that the blind search assumes, whose M-steps lose the kernel under less.
    """

    tried: int = 8
    score_margin: float = 0.05
    noisy_margin: float = 0.02
    score_weight: float = 0.05
    spread_weight: float = 0.02
    explained: float = 3.0
    refined: int = 2
    rounds: int = 1
    refinement_bonus: float = 0.007
    low_noise: float = 0.01
    moved: tuple[SearchConfig, ...] = (
        _em(Pass(24, 700), 0.05, HQS(5, 3e6, centre=True)),
        _em(Pass(18, 400), 0.03, HQS(5, 1e7, centre=True, gradients=True)),
    )
    averaged: int = 6
    moved_loss: float = 0.02
    least_sigma: float = 0.01


@dataclass
class Found:
    """What a search found.

    Attributes:
        candidates: the kernel of each photograph, and its image on the padded grid.
        window: the part of the photographs that was searched.
        frame: where the window lies in the padded grid.
        caution: factor (B,) of the modelling error in the restoration with these kernels.
        radius: (B, 2) how far the blur extends, see `Starts`; None where no start said so.
    """

    candidates: Candidates
    window: Measurement
    frame: Frame
    caution: float | Tensor = 1.0
    radius: Tensor | None = None

    @classmethod
    def tried(cls, candidates: Candidates, window: Measurement, frame: Frame, radius: Tensor | None) -> Found:
        """What a trial found. Where it leaves no more than the noise, no caution is needed."""
        excess = 1 - window.sigma.square() / candidates.variance
        return cls(candidates, window, frame, CAUTION * (excess / _FULL).clamp(0, 1), radius)


class GradientFirstSearch:
    """Finds the kernel of photographs.

    A start from the gradients takes seconds. Short restorations of a window with each of its kernels show how
    well the prior explains the measurement with them, and the evidence chooses. Where the best one does not
    explain a photograph the blind search runs too, and the evidence chooses again. Where noise hides the fine
    gradients, EM with the prior improves the kernel.

    Args:
        search: the blind search.
        config: constants.
        automatic: whether the size of the kernel is unknown, and the given K only its upper limit.
        shared: whether the photographs of a batch have one kernel. Those of all of them are candidates then,
            each is judged on all, and its least squares are summed.
    """

    cautious = True
    tried = True

    def __init__(
        self,
        search: BlindSearch,
        config: GradientFirst | None = None,
        automatic: bool = False,
        shared: bool = False,
    ) -> None:
        self.search, self.config = search, config or GradientFirst()
        self.automatic, self.shared = automatic, shared
        self.movers = tuple(search.with_config(one) for one in self.config.moved)

    def noisy(self, photographs: Measurement) -> Tensor:
        """(B,) bool, whether noise hides the fine gradients; with a shared kernel, those of any."""
        noisy = photographs.sigma > self.config.low_noise
        return noisy.any().expand_as(noisy) if self.shared else noisy

    def work(self, height: int, width: int, seen: int) -> int:
        """Pixels of all full EM steps without movers and blind search, for one photograph.

        Args:
            height, width: of the grid of the trials.
            seen: pixels of the photograph that the start sees.
        """
        trials = self.config.tried + 1 + self.config.rounds * self.config.refined
        return height * width * (_start_steps(seen) + TRIAL_STEPS * trials)

    def __call__(self, photographs: Measurement, kernel_size: int, seed: int, hooks: Hooks = NO_HOOKS) -> Found:
        """The most plausible kernel (B, 1, K, K) of each photograph; smaller than K if the size is unknown.

        Args:
            photographs: B of them on their own pixels, not on a padded grid.
            kernel_size: K.
            seed: of the noise of the trials.
            hooks: what follows the run.
        """
        images, name, config = len(photographs), "kernel search", self.config
        starts = self._starts(photographs, kernel_size, name, hooks)
        kernels, scores = starts.kernels, starts.scores
        size = kernels.shape[-1]
        window, frame = _window(photographs, size)
        measurement = frame.extend(window)
        operator = self.search.operator(size, mask=measurement.mask, fixed=True)
        arguments = trial(self.search.prior, operator, measurement, kernels.flatten(0, 1), seed)
        tried = latest = run_passes(**arguments, stage=name, hooks=hooks)
        lag = scores - scores.amin(1, keepdim=True)
        advantage = torch.where(lag > self._margin(photographs), -torch.inf, -config.score_weight * lag)
        values = latest_values = self._value(tried, images) + advantage
        for _ in range(config.rounds):
            best = most_plausible(latest_values, config.refined)
            advantage = advantage.flatten()[best].view(images, -1) + config.refinement_bonus
            chosen = latest.pick(best)
            refined = kernels_from_images(window, operator.light(frame.crop(chosen.image)), size, self.shared)
            arguments = trial(self.search.prior, operator, measurement, refined, seed)
            latest = run_passes(**arguments, stage=name, hooks=hooks)
            latest.trace[:0] = chosen.trace
            latest_values = self._value(latest, images) + advantage
            tried, values = together(tried, latest, images), torch.cat([values, latest_values], 1)
        return Found.tried(tried.pick(most_plausible(values, 1)), window, frame, starts.radius)

    def _starts(self, photographs: Measurement, kernel_size: int, stage: str, hooks: Hooks) -> Starts:
        """Kernels to try; the last one is the first, turned."""
        side = min(photographs.size)
        sizes = automatic_sizes(side) if self.automatic else sizes_around(kernel_size, side)
        pixels = Layout.of(photographs, kernel_size).grids[0]
        seen = photographs.size[0] * photographs.size[1]
        part = pixels[0] * pixels[1] * _start_steps(seen) // (PARTS * len(sizes))

        def on_part() -> None:
            if hooks.on_work is not None:
                hooks.on_work(stage, part)

        starts = starts_for(photographs, kernel_size, sizes, self.automatic, on_part)
        if self.shared:
            starts = shared_starts(starts, photographs, self.config.tried)
        kernels, scores = starts.kernels[:, : self.config.tried], starts.scores[:, : self.config.tried]
        count = int((scores - scores[:, :1] <= self._margin(photographs)).sum(1).max())
        kernels, scores = kernels[:, :count], scores[:, :count]
        kernels = torch.cat([kernels, kernels[:, :1].flip(-2, -1)], 1)
        if self.automatic:
            flat = kernels.flatten(0, 1)
            size = min(support_size(flat) + _ROOM, kernel_size)
            kernels = ext.project_kernel(crop_kernel(flat, size)).unflatten(0, kernels.shape[:2])
        return Starts(kernels, torch.cat([scores, scores[:, :1]], 1), starts.radius)

    def _margin(self, photographs: Measurement) -> Tensor:
        """By how much the scores of kernels that are tried may be worse than the best one, (B, 1)."""
        margins = photographs.sigma.new_tensor([self.config.score_margin, self.config.noisy_margin])
        return margins[self.noisy(photographs).long()].unsqueeze(1)

    def _value(self, tried: Candidates, images: int) -> Tensor:
        """What the trials say of their kernels (B, H): the evidence, and how far they spread.

        Whether a kernel is in one piece, which counts in the blind search, says nothing here: pieces without
        mass are removed from the estimates, and where the camera moves fast beside a place of rest, a path is
        faint. Of a shared kernel all photographs say the same, the mean.
        """
        spread = torch.special.entr(tried.parameters).sum((1, 2, 3))
        value = tried.evidence + self.config.spread_weight * spread
        value = value.nan_to_num(nan=-torch.inf).view(images, -1)
        return value.mean(0, keepdim=True).repeat(images, 1) if self.shared else value

    def settled(self, moved: Candidates) -> Candidates:
        """The mean of the last kernels of EM that agree, for each photograph.

        Each step makes its kernel from another sample of the image, and the mean has less of their errors.
        """
        last = [step.parameters.to(moved.parameters) for step in moved.trace[-self.config.averaged :]]
        images, count = len(moved.parameters), len(last)
        score = moved.residual.new_zeros(images, count)
        best = torch.arange(images, device=score.device) * count + count - 1
        kernels = torch.stack(last, 1).flatten(0, 1)
        return replace(moved, parameters=merged_kernels(kernels, score, best, count, _SETTLED))

    def explains(self, found: Found) -> Tensor:
        """(B,) bool, where the kernel that was found needs no further search."""
        return found.candidates.residual <= self.config.explained * found.window.sigma

    def blind_grid(self, photographs: Measurement, kernel_size: int) -> tuple[int, Measurement]:
        """K of the blind search and the padded grid it runs on, with the noise that it assumes."""
        size = min(kernel_size, _LARGEST_SEARCHED)
        window, frame = _window(photographs, size)
        return size, replace(frame.extend(window), sigma=window.sigma.clamp_min(self.config.least_sigma))

    def better(
        self,
        photographs: Measurement,
        found: Found,
        other: Candidates,
        counts: Tensor,
        seed: int,
        hooks: Hooks = NO_HOOKS,
        loss: float = 0.0,
    ) -> Found:
        """What was found, or another kernel where that is more plausible.

        Args:
            photographs: B of them on their own pixels.
            found: from gradients.
            other: one kernel for each photograph.
            counts: (B,) bool, for which photographs the other kernel counts, as if each of them were alone.
            seed: of the noise of the trials.
            hooks: what follows the run.
            loss: by how much the other kernel may be less plausible.
        """
        kernels, images = (found.candidates.parameters, other.parameters), len(photographs)
        size = max(one.shape[-1] for one in kernels)
        window, frame = _window(photographs, size)
        measurement = frame.extend(window)
        operator = self.search.operator(size, mask=measurement.mask, fixed=True)
        both = torch.stack([pad_kernel(one, size) for one in kernels], 1).flatten(0, 1)
        arguments = trial(self.search.prior, operator, measurement, both, seed)
        tried = run_passes(**arguments, stage="kernel search", hooks=hooks)
        value = self._value(tried, images)
        value[:, 1] = torch.where(counts, value[:, 1] + loss, -torch.inf)
        chosen = replace(tried.pick(most_plausible(value, 1)), trace=other.trace)
        return Found.tried(chosen, window, frame, found.radius)


def _start_steps(seen: int) -> int:
    """Full EM steps in the window that take about as long as the start in `seen` pixels."""
    return _START_STEPS * max(1, round(seen / _START_PIXELS))


def _window(photographs: Measurement, kernel_size: int) -> tuple[Measurement, Frame]:
    """The part of the photographs that kernels of this size are tried in."""
    layout = Layout.of(photographs, kernel_size)
    if layout.fits:
        return photographs, layout.frame
    window = photographs.window(*edge_window(photographs.y, layout.search_size, 1, photographs.mask))
    return window, layout.frame_of_part(*window.size)
