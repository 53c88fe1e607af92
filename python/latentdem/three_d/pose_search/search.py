"""Search for the poses: candidates on a coarse grid, refined jointly and compared by the noise error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..config import ReconstructionConfig
from ..geometry.cameras import centred
from ..geometry.poses import PosePosterior, angle_between
from .candidates import (
    APART,
    MAX_ALTERNATIVES,
    PairCandidates,
    distinct,
    pose_grid,
    spread_out,
    turn_last,
)
from .noise_error import SCORED, Draw, PairError
from .objective import SPARSE, CameraObjective, SearchProgress, ignore_progress

FINAL_DRAWS = 24
MERGED = math.radians(10)  # smallest distance between two candidates of a view that joins
SAME = math.radians(1.5)  # smallest distance between two sets of cameras
TEMPERATURE = 0.4  # increase of the noise error that makes a set e times less likely
UNLIKELY = 6.0  # in units of that, the increase from which a set is dropped
POSSIBLE = 100.0  # increase of the rough noise error from which a set is dropped before all cameras have moved

Recrop = Callable[[Tensor], PairError]


class PoseSearch:
    """One search for the poses of n views relative to the first.

    Args:
        error: noise error of a pair of views.
        config: constants of the reconstruction.
        generator: source of the noise; all candidates are compared under the same noise.
        recrop: for unknown principal points; gives the error of the views once they are cropped around the
            origin, given the cameras (n, 5) that see it.

    Attributes:
        objective: scores and refines sets of cameras.
    """

    def __init__(
        self,
        error: PairError,
        config: ReconstructionConfig,
        generator: torch.Generator,
        recrop: Recrop | None = None,
    ) -> None:
        self.objective = CameraObjective(error, config, generator)
        self._config, self._recrop = config, recrop
        self._views = self.objective.views
        self._crop: Tensor | None = None

    def __call__(self, on_step: SearchProgress = ignore_progress) -> tuple[PosePosterior, Tensor]:
        """Posterior of the cameras, and the confidence (n,) in the most likely ones, see `likely_poses`.

        The azimuth and distance of the first camera are 0, and so is its polar angle unless the prior estimates
        it. Principal points and distances, if they are unknown, are those that `recrop` was called with.

        Args:
            on_step: called with the finished share of the search.
        """
        search = self.search_pair if len(self._views) == 2 else self.search_many
        sets, alternatives = search(within(on_step, 0.0, 0.8))
        draws = self.objective.draws(FINAL_DRAWS, exact=True)
        posterior = self.posterior(sets, draws, within(on_step, 0.8, 0.95))
        confidence, best, likely = [1.0], posterior.cameras[0], [torch.zeros(0, 4)]
        for view, others in enumerate(alternatives, 1):
            if others.ndim == 2:
                poses, others = others, best.repeat(len(others), 1, 1)
                others[:, view] = best[0] + poses
            poses, probabilities = self.objective.likely_poses(best, view, others, draws)
            confidence.append(float(probabilities[0]))
            likely.append(torch.cat([poses, probabilities[:, None]], 1)[1:].float().cpu())
            on_step(0.95 + 0.05 * view / len(alternatives))
        posterior = replace(posterior, others=pad_sequence(likely, batch_first=True))
        if self._crop is not None:
            crop = self._crop[None, :, 2:].expand(len(posterior.cameras), -1, -1)
            posterior = replace(posterior, cameras=torch.cat([posterior.cameras[..., :2], crop], -1))
        return posterior, torch.tensor(confidence)

    def search_pair(self, on_step: SearchProgress = ignore_progress) -> tuple[Tensor, list[Tensor]]:
        """Sets of cameras (B, 2, 3) of two views, and the refined ones (H, 2, 3) of all hypotheses.

        The initial hypotheses are among the sets, so that a refinement that went astray is discarded.
        """
        pairs, views, steps = self._hypothesis_cameras(1), self._views, self._config.refinements
        share = 1.0 if self._recrop is None else 0.7
        refine = self.objective.refine
        refined = refine(pairs, views, steps, exact=True, on_step=within(on_step, 0.0, share))
        sets = torch.cat([refined, pairs])
        if self._recrop is not None:
            self._crop_around_origin(refined[self.objective.score(refined, views, exact=True).argmin()])
            refined, sets = centred(refined), centred(sets)
            last = within(on_step, share, 1.0)
            refined = refine(refined, views, steps // 2, (0.5, 0.0), True, last)
            sets = torch.cat([refined, sets])
        return sets, [refined]

    def search_many(self, on_step: SearchProgress = ignore_progress) -> tuple[Tensor, list[Tensor]]:
        """Sets of cameras (B, n, 3) of three or more views, and alternatives (P, 3) of each but the first."""
        others, config = self._views[1:].tolist(), self._config
        share = 0.6 / len(others)
        candidates = [self.candidates(j, within(on_step, share * (j - 1), share * j)) for j in others]
        sets = self.join(candidates, within(on_step, 0.6, 0.7))
        sets, _ = self.refine_and_rank(sets, self._views, on_step=within(on_step, 0.7, 0.8))
        if self._recrop is not None:
            self._crop_around_origin(sets[0])
            sets = centred(sets)
            candidates = [replace(candidate, pairs=centred(candidate.pairs)) for candidate in candidates]
        cameras, alternatives = self.recheck(sets[0], candidates, within(on_step, 0.8, 0.85))
        if not torch.equal(cameras, sets[0]):
            sets, _ = self.refine_and_rank(cameras[None], self._views)
        last = within(on_step, 0.85, 1.0)
        refined = self.objective.refine(sets, self._views, config.refinements // 2, (0.5, 0.0), True, last)
        return torch.cat([refined, sets]), alternatives

    def _crop_around_origin(self, cameras: Tensor) -> None:
        """Recrops the views around the origin as cameras (n, 5) see it, so that principal points are 0."""
        assert self._recrop is not None
        self.objective.error, self._crop = self._recrop(cameras), cameras

    def hypotheses(self, view: int) -> Tensor:
        """The best poses (H, 3) of one view on the grid, by its pair with the first view alone."""
        poses, both = pose_grid().to(self.objective.error.latents), torch.tensor([0, view])
        sets = torch.stack([torch.zeros_like(poses), poses], 1)
        losses = self.objective.score(self.objective.cameras(sets, both), both)
        return poses[distinct(sets, losses, APART, self._config.hypotheses)]

    def _hypothesis_cameras(self, view: int) -> Tensor:
        """Cameras (H, 2, 3) of the first view and of another one, by matched features and on the grid."""
        poses, both = self.hypotheses(view), torch.tensor([0, view])
        pairs = self.objective.cameras(torch.stack([torch.zeros_like(poses), poses], 1), both)
        matches, polar = self.objective.error.matches, self.objective.error.condition.polar
        if matches is None or polar is None:
            return pairs
        found = matches.hypothesis(view, polar[both], pairs.shape[-1] > 3)
        return pairs if found is None else torch.cat([found[None].to(pairs), pairs])

    def candidates(self, view: int, on_step: SearchProgress = ignore_progress) -> PairCandidates:
        """Refined hypotheses of one view by its pair with the first view alone."""
        pairs = self._hypothesis_cameras(view)
        return PairCandidates(*self.refine_and_rank(pairs, torch.tensor([0, view]), on_step))

    def join(self, candidates: Sequence[PairCandidates], on_step: SearchProgress = ignore_progress) -> Tensor:
        """The best sets of cameras (B, n, 3), from the candidates of each view but the first.

        Views join one by one, the one with the largest margin first. A new view is compared with the first one
        and with the two that joined before it, which closes triangles: two relative poses must add up to the
        third. The best sets, with the camera of the new view refined, are kept for the next view.
        """
        config, objective = self._config, self.objective
        options = [
            distinct(candidate.pairs, candidate.losses, MERGED, config.hypotheses) for candidate in candidates
        ]
        order = sorted(range(len(candidates)), key=lambda i: -candidates[i].margin)
        start, chosen = candidates[order[0]], options[order[0]]
        sets, losses = start.pairs[chosen], start.losses[chosen]
        views = torch.tensor([0, 1 + order[0]])
        for count, i in enumerate(order[1:], 2):
            new = candidates[i].poses[options[i]]
            views = torch.cat([views, torch.tensor([1 + i])])
            poses = (sets - sets[:, :1]).repeat_interleave(len(new), 0)
            poses = torch.cat([poses, new.repeat(len(sets), 1)[:, None]], 1)
            losses = losses.repeat_interleave(len(new))
            sets = objective.cameras(poses, views)
            scores = losses + objective.score(sets, views, only=count)
            best = distinct(sets, scores, MERGED, config.hypotheses)
            sets, losses = (
                objective.refine(sets[best], views, config.refinements // 3, only=count),
                losses[best],
            )
            losses = losses + objective.score(sets, views, only=count)
            best = distinct(sets, losses, SAME, config.posterior_size, POSSIBLE)
            sets, losses = sets[best], losses[best]
            on_step(count / len(order))
        return sets[:, views.argsort()]

    def refine_and_rank(
        self, sets: Tensor, views: Tensor, on_step: SearchProgress = ignore_progress
    ) -> tuple[Tensor, Tensor]:
        """Sets of cameras (B, m, 3) of m views after half of the M-steps, the best first, and losses (B,).

        Each set is replaced by its refinement only if that is better. Sets much worse than the best are
        dropped.
        """
        refined = self.objective.refine(sets, views, self._config.refinements // 2, (1.0, 0.5), on_step=on_step)
        before, after = self.objective.score(torch.cat([sets, refined]), views).chunk(2)
        sets, losses = torch.where((after < before)[:, None, None], refined, sets), after.minimum(before)
        best = distinct(sets, losses, SAME, len(sets), POSSIBLE)
        return sets[best], losses[best]

    def recheck(
        self, cameras: Tensor, candidates: Sequence[PairCandidates], on_step: SearchProgress = ignore_progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Compares the pose of each view with alternatives, the least certain view first.

        A wrong view may have led astray those that joined after it. Among three views the alternatives of one
        are those by its pair with the first. As that may show another side of the object, among more views they
        are the azimuths that agree best with the first view and two certain ones. Alternatives are refined and
        scored against all other views.

        Returns:
            Cameras (n, 3), and for each view but the first the poses (P, 3) that were compared with its own.
        """
        alternatives = [candidate.poses[:0] for candidate in candidates]
        order = sorted(range(len(candidates)), key=lambda i: candidates[i].margin)
        exact = len(candidates) > 2
        for count, i in enumerate(order, 1):
            view = i + 1
            certain = [other + 1 for other in reversed(order) if other != i]
            views, poses = self._alternatives(cameras, view, candidates[i], certain)
            if len(poses):
                last = views.index(view)
                index = torch.tensor(views)
                sets = cameras[index].repeat(1 + len(poses), 1, 1)
                sets[1:, last] = cameras[0] + poses
                sets[1:] = self.objective.refine(sets[1:], index, self._config.refinements // 3, only=last)
                whole = cameras.repeat(len(sets), 1, 1)
                whole[:, view] = sets[:, last]
                best = int(self.objective.score_against_all(whole, view, exact).argmin())
                poses = sets[:, last] - cameras[0]
                alternatives[i] = poses[torch.arange(len(poses)) != best]
                if best > 0:
                    cameras = cameras.clone()
                    cameras[view] = sets[best, last]
            on_step(count / len(order))
        return cameras, alternatives

    def _alternatives(
        self, cameras: Tensor, view: int, candidates: PairCandidates, certain: list[int]
    ) -> tuple[list[int], Tensor]:
        """Views that one is compared with, including itself, and its alternative poses (R, 3); see `recheck`.

        Args:
            cameras: (n, 3) cameras of all views.
            view: the view.
            candidates: those of the view by its pair with the first.
            certain: the other views but the first, the most certain one first.
        """
        pose = cameras[view] - cameras[0]
        if len(certain) < 2 or candidates.margin == math.inf:
            return self._views.tolist(), candidates.alternatives(pose)
        views = [*spread_out([0, *certain], cameras), view]
        index = torch.tensor(views)
        sets = turn_last(cameras[index])
        losses = self.objective.score(sets, index, exact=True, only=len(views) - 1)
        poses = sets[distinct(sets, losses, APART, MAX_ALTERNATIVES + 1), -1] - cameras[0]
        return views, poses[angle_between(poses, pose) >= APART / 2]

    def posterior(
        self, sets: Tensor, draws: list[Draw], on_step: SearchProgress = ignore_progress
    ) -> PosePosterior:
        """Posterior over the most likely sets of cameras (B, n, 3), each bundle-adjusted by the prior.

        If the prior scores poses, only the sets are considered that are near the one with the best score and
        noise error (by a part of the draws, as scores decide between what is far apart). The noise error
        divided by `TEMPERATURE` serves as negative log-likelihood. Sets nearer than `SAME` to a better one, and
        sets unlikely by `UNLIKELY` times the temperature, are left out. For a prior whose views are samples
        rather than means, it is the best set alone.
        """
        config, error = self._config, self.objective.error
        most = min(config.hypotheses, config.posterior_size if error.prior.temperature < 1 else 1)
        scores = self.objective.scores(sets, self._views)
        if scores is not None:
            losses = self.objective.losses(sets, self._views, draws[::SPARSE]).mean(0)
            best = sets[(losses - SCORED * scores).argmin()]
            sets = sets[angle_between(sets - sets[:, :1], best - best[:1]).amax(1) < APART / 2]
        losses = self.objective.losses(sets, self._views, draws).mean(0)
        likely = sets[distinct(sets, losses, SAME, most, UNLIKELY * TEMPERATURE)]
        if config.bundled:
            for i, cameras in enumerate(likely):
                likely[i] = error.prior.bundle(error.condition, cameras, config.radius)
                on_step((i + 1) / len(likely))
        losses = self.objective.losses(likely, self._views, draws).mean(0)
        order = losses.argsort(stable=True)
        order = order[losses[order] <= losses.min() + UNLIKELY * TEMPERATURE]
        return PosePosterior(likely[order], torch.softmax(-losses[order] / TEMPERATURE, dim=0))


def within(on_step: SearchProgress, start: float, end: float) -> SearchProgress:
    """Progress function of one part of the search, which reports shares from `start` to `end` of the whole."""
    return lambda done: on_step(start + (end - start) * done)
