"""Scores of sets of cameras by the noise errors of their pairs, and gradient steps that reduce these."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import ReconstructionConfig
from ..geometry.poses import MovingPoses
from .candidates import APART, compared_pairs, distinct, pairs_in
from .noise_error import SCORED, Draw, PairError

SCORE_DRAWS = 4  # draws of the noise per score
SPARSE = 4  # every such draw counts where scores decide
# Constants of the confidence, chosen in docs/research/three_d.md: on the pairs of "Confidence", and those of
# scores on the pairs of "Scores that do not depend on rounding".
MODEL_ERROR = 8.0  # standard deviation of differences of the noise error that the errors of the prior make
FITTING, FITTING_WIDTH = -1.5, 0.5  # score at which two views may as well be of two objects, and its width
RIGHT = math.radians(15)  # errors of heights below which a pose is right
MISFIT, MISFIT_WIDTH = 1.2, 0.05  # where a pose is as likely to be explained as not, and how fast that changes

SearchProgress = Callable[[float], None]


def ignore_progress(done: float) -> None:
    """Does nothing with the finished share of the search."""


@dataclass
class CameraObjective:
    """Noise error of sets of cameras (B, m, 3) or (B, m, 5) of m of the n known views.

    Attributes:
        error: noise error of a pair of views.
        config: constants of the reconstruction.
        generator: source of the noise.
    """

    error: PairError
    config: ReconstructionConfig
    generator: torch.Generator

    @property
    def views(self) -> Tensor:
        """Indices (n,) of the known views."""
        return torch.arange(len(self.error.latents))

    def draws(self, count: int, exact: bool = False) -> list[Draw]:
        """Draws of the noise, rough ones unless `exact`. A pair needs exact ones: no third view checks it."""
        return self.error.draws(count, self.generator, rough=len(self.error.latents) > 2 and not exact)

    def cameras(self, poses: Tensor, views: Tensor) -> Tensor:
        """See `ViewCondition.cameras`."""
        return self.error.condition.cameras(poses, views.to(poses.device))

    def losses(
        self, sets: Tensor, views: Tensor, draws: list[Draw], only: int | None = None, scored: bool = False
    ) -> Tensor:
        """Noise errors (D, B) of sets of cameras, summed over the pairs that are compared.

        Args:
            sets: (B, m, 3) cameras.
            views: (m,) views that they belong to.
            draws: D draws of the noise.
            only: index into `views`; pairs without this view are left out.
            scored: see `PairError`.
        """
        errors = self.error(*pairs_in(sets, views, *compared_pairs(len(views), only)), draws, scored)
        return errors.unflatten(1, (len(sets), -1)).sum(2)

    def score(self, sets: Tensor, views: Tensor, exact: bool = False, only: int | None = None) -> Tensor:
        """Mean of `losses` over a few draws, with the scores of the prior, (B,)."""
        return self.losses(sets, views, self.draws(SCORE_DRAWS, exact), only, scored=True).mean(0)

    def score_against_all(self, sets: Tensor, view: int, exact: bool) -> Tensor:
        """Noise error (B,) of the pairs of one view with all others, in sets of cameras (B, n, 3)."""
        others = self.views[self.views != view]
        pairs = pairs_in(sets, self.views, others, torch.full_like(others, view))
        errors = self.error(*pairs, self.draws(SCORE_DRAWS, exact), scored=True)
        return errors.unflatten(1, (len(sets), -1)).sum(2).mean(0)

    def scores(self, sets: Tensor, views: Tensor, only: int | None = None) -> Tensor | None:
        """Scores (B,) of sets of cameras, summed over the pairs, see `PairError.scores` and `losses`."""
        scores = self.error.scores(*pairs_in(sets, views, *compared_pairs(len(views), only)))
        return None if scores is None else scores.unflatten(0, (len(sets), -1)).sum(1)

    def likely_poses(
        self, cameras: Tensor, view: int, others: Tensor, draws: list[Draw]
    ) -> tuple[Tensor, Tensor]:
        """Poses (P, 3) of one view relative to the first, and the probability (P,) that each is right.

        The first pose is that of `cameras`, its probability the confidence in it. The others are far from it
        and from each other, the likeliest first. A probability is the product of two: that no pose is better,
        and that the views show one object, so that the sum is below 1 where none of the poses may be right.

        If the prior scores poses, the first is the softmax of the scores, less the noise errors in units of
        `SCORED`, and the second rises from 0 to 1 with the score, around `FITTING`. If it estimates the errors
        of its polar angles, the probability that they are within `RIGHT` is a third factor. Otherwise p_k is
        that of a paired comparison with another pose over the draws, whose mean difference has the variance of
        its own mean plus `MODEL_ERROR` squared, and the odds of the pose are (1 - p_k) / p_k; the second falls
        with the misfit (see `PairError.misfit`) from 1 to 0 around `MISFIT`.

        Args:
            cameras: (n, 3) cameras of all views.
            view: the view.
            others: (O, n, 3) sets of cameras with other poses of the view.
            draws: draws of the noise.
        """
        sets = torch.cat([cameras[None], others])
        poses = sets[:, view] - sets[:, 0]
        # Calibrated for the prior, and the bundle adjustment moves heights by more than matches allow.
        prior = replace(self, error=replace(self.error, matches=None))
        scores = prior.scores(sets, self.views, only=view)
        if scores is not None:
            losses = self.losses(sets, self.views, draws[::SPARSE], only=view).mean(0)
            logits = scores - losses / SCORED
            score = scores[0] / len(compared_pairs(len(cameras), view)[0])
            explained = float(torch.sigmoid((score - FITTING) / FITTING_WIDTH)) * self._heights_are_right(view)
        else:
            losses = self.losses(sets, self.views, draws, only=view)
            worse = losses - losses[:, :1]
            deviation = (worse.var(0) / len(draws) + MODEL_ERROR**2).sqrt()
            better = torch.special.ndtr(worse.mean(0) / deviation).clamp_min(1e-12)
            logits, explained = ((1 - better) / better).log(), self._explained(cameras, view)
        order = torch.cat([logits.new_full((1,), -torch.inf), -logits[1:]])
        chosen = distinct(sets[:, [0, view]], order, APART / 2, len(sets))
        return poses[chosen], explained * torch.softmax(logits[chosen], 0)

    def _heights_are_right(self, view: int) -> float:
        """Probability that the polar angles of view 1 and another one are right, if errors are normal."""
        deviation = self.error.condition.deviation
        if deviation is None:
            return 1.0
        return math.erf(RIGHT / math.sqrt(2 * float(deviation[[0, view], 0].square().mean())))

    def _explained(self, cameras: Tensor, view: int) -> float:
        """Probability that the prior's predictions explain the pairs of a view; 1 if it predicts no mean."""
        pairs = pairs_in(cameras[None], self.views, *compared_pairs(len(cameras), view))
        misfit = self.error.misfit(*pairs)
        return 1.0 if misfit is None else float(torch.sigmoid((MISFIT - misfit.mean()) / MISFIT_WIDTH))

    def refine(
        self,
        sets: Tensor,
        views: Tensor,
        steps: int,
        rates: tuple[float, float] = (1.0, 0.0),
        exact: bool = False,
        on_step: SearchProgress = ignore_progress,
        only: int | None = None,
    ) -> Tensor:
        """Sets of cameras after M-steps at the known views, all sets in one batch.

        The latent of a known view takes the place of the fused one in Algorithm 2, so the alignment loss is the
        noise error. The polar angle of the first view is optimised, too, if the prior estimates polar angles.

        Args:
            sets: (B, m, 3) cameras.
            views: (m,) views that they belong to.
            steps: number of M-steps.
            rates: step sizes at the start and the end, in units of `search_rate`.
            exact: whether to draw the noise where its expectation is known.
            on_step: called with the finished share.
            only: index into `views`; the other cameras are fixed.
        """
        first = self.error.condition.polar is not None and only is None
        radius = self.config.radius or sets.shape[-1] > 3  # the size of a crop does not determine the distance
        moving = MovingPoses(sets, radius, first)
        pair = compared_pairs(len(views), only)
        for i, draw in enumerate(self.draws(steps, exact)):
            poses = moving.poses
            gradient = self.error.gradient(*pairs_in(poses, views, *pair), draw)
            gradient = gradient.view(len(sets), -1, 2, sets.shape[-1])
            total = torch.zeros_like(poses)
            for side, index in enumerate(pair):
                total.index_add_(1, index.to(poses.device), gradient[:, :, side])
            if only is not None:
                total[:, torch.arange(len(views)) != only] = 0
            rate = rates[0] + (rates[1] - rates[0]) * i / steps
            moving.move(total, self.config.search_rate * rate)
            on_step((i + 1) / steps)
        return moving.poses
