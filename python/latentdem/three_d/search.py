"""Search for the poses: a coarse grid, several hypotheses, refined together and judged by the noise error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .noise_error import Draw, PairError
from .poses import Beliefs, MovingPoses, angle_between
from .recipe import Recipe

GRID_AZIMUTHS = 24
GRID_POLARS = (-50.0, -25.0, 0.0, 25.0, 50.0)  # degrees
GRID_DRAWS, FINAL_DRAWS = 4, 24
APART = math.radians(40)  # hypotheses nearer to each other than this are one
SAME = math.radians(1.5)  # sets of cameras nearer to each other than this are one
TEMPERATURE = 10.0  # noise error by which a set is e times less likely
UNLIKELY = 6.0  # in units of that, what is worse before it is moved is given up
BEAM = 64  # with 8 hypotheses nothing is lost for up to 3 views

Step = Callable[[float], None]


def edges(views: int) -> tuple[Tensor, Tensor]:
    """Pairs of views that are compared, (E,) indices each: every view with the first and the two before it.

    All pairs of up to four views; beyond, their number grows only linearly.
    """
    pairs = [(i, j) for j in range(1, views) for i in sorted({0, max(j - 2, 0), j - 1})]
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return first, second


def grid() -> Tensor:
    """Candidate poses (G, 3), float32."""
    polar = torch.deg2rad(torch.tensor(GRID_POLARS))
    azimuth = torch.arange(GRID_AZIMUTHS) * (2 * math.pi / GRID_AZIMUTHS) - math.pi
    rows = torch.cartesian_prod(polar, azimuth)
    return torch.cat([rows, torch.zeros(len(rows), 1)], dim=1)


class PoseSearch:
    """Finds the poses of n views relative to the first.

    Args:
        error: of a pair of views.
        recipe: constants.
        generator: of the noise; the same noise judges all candidates.
    """

    def __init__(self, error: PairError, recipe: Recipe, generator: torch.Generator) -> None:
        self._error, self._recipe, self._generator = error, recipe, generator
        self._views = len(error.latents)
        self._first, self._second = edges(self._views)

    def __call__(self, on_step: Step = lambda done: None) -> tuple[Beliefs, Tensor]:
        """What is believed of the cameras, and the confidence (n,) that the best are better than the others.

        The first azimuth and distance are 0, and its polar angle, too, unless the prior estimates it.

        Args:
            on_step: called with the finished share of the search.
        """
        share = 0.5 / (self._views - 1)
        candidates = []
        for view in range(1, self._views):
            candidates.append(self.hypotheses(view))
            on_step(share * view)
        sets = self._cameras(self.consistent(candidates), range(self._views))
        refined = self.refine(sets, lambda done: on_step(0.5 + 0.3 * done))
        draws = self._error.draws(FINAL_DRAWS, self._generator)
        # The hypotheses themselves compete, too, so that an M-step that led astray is forgotten.
        beliefs = self.believed(torch.cat([refined, sets]), draws, lambda done: on_step(0.8 + 0.15 * done))
        confidence = [1.0]
        for view in range(1, self._views):
            confidence.append(self.confidence(beliefs.cameras[0], view, candidates[view - 1], draws))
            on_step(0.95 + 0.1 * share * view)
        return beliefs, torch.tensor(confidence)

    def hypotheses(self, view: int) -> Tensor:
        """The best candidates (H, 3) for one view, judged by its pair with the first alone."""
        poses = grid().to(self._error.latents)
        first, second = torch.zeros(len(poses), dtype=torch.long), torch.full((len(poses),), view)
        cameras = self._cameras(torch.stack([torch.zeros_like(poses), poses], 1), (0, view))
        draws = self._error.draws(GRID_DRAWS, self._generator)
        total = self._error(first, second, cameras, draws).sum(0)
        kept: list[Tensor] = []
        for pose in poses[total.argsort(stable=True)]:
            if all(angle_between(pose, other) >= APART for other in kept):
                kept.append(pose)
            if len(kept) == self._recipe.hypotheses:
                break
        return torch.stack(kept)

    def consistent(self, candidates: list[Tensor]) -> Tensor:
        """The best choices (B, n, 3) of one hypothesis for each view, over all pairs that are compared.

        With three views or more the pairs close triangles: two relative poses must add up to the third.

        Args:
            candidates: (H, 3) of each view but the first.
        """
        options = [torch.zeros_like(candidates[0][:1]), *candidates]
        tables = self._tables(options)
        beam: list[tuple[float, list[int]]] = [(0.0, [0])]
        for view in range(1, self._views):
            before = [i for i, j in tables if j == view]
            grown = [
                (loss + sum(float(tables[i, view][chosen[i], c]) for i in before), [*chosen, c])
                for loss, chosen in beam
                for c in range(len(options[view]))
            ]
            beam = sorted(grown)[:BEAM]
        best = beam[: self._recipe.hypotheses]
        return torch.stack([torch.stack([options[i][c] for i, c in enumerate(chosen)]) for _, chosen in best])

    def refine(self, sets: Tensor, on_step: Step = lambda done: None) -> Tensor:
        """The sets of cameras (B, n, 3) after the M-steps at the known views, all sets in one batch.

        Where the prior estimates polar angles, that of view 1 moves, too. The latent of a known view plays the
        part of the fused one in Algorithm 2, so that the alignment loss is the noise error.
        """
        height, count = self._error.condition.polar is not None, self._recipe.refinements
        moving = MovingPoses(sets, self._recipe.radius, height)
        for i, draw in enumerate(self._error.draws(count, self._generator)):
            poses = moving.poses
            gradient = self._error.gradient(*self._pairs(poses), draw).view(len(sets), -1, 2, 3)
            total = torch.zeros_like(poses)
            for side, views in enumerate((self._first, self._second)):
                total.index_add_(1, views.to(poses.device), gradient[:, :, side])
            moving.move(total, self._recipe.search_rate * (1 - i / count))
            on_step((i + 1) / count)
        return moving.poses

    def believed(self, sets: Tensor, draws: list[Draw], on_step: Step = lambda done: None) -> Beliefs:
        """The most likely of the sets of cameras (B, n, 3), each moved together with the shape by the prior.

        Their probabilities are as if the noise error, over `TEMPERATURE`, was the negative log-likelihood. What
        is nearer than `SAME` to a better one is left out, and what is unlikely by `UNLIKELY` times that. For a
        prior whose views are samples, not means, it is the best one alone.
        """
        losses, recipe, error = self.loss(sets, draws).sum(0), self._recipe, self._error
        most = min(recipe.hypotheses, recipe.believed if error.prior.temperature < 1 else 1)
        kept: list[Tensor] = []
        for i in losses.argsort(stable=True):
            if losses[i] > losses.min() + UNLIKELY * TEMPERATURE or len(kept) == most:
                break
            if all(angle_between(sets[i] - sets[i, :1], other - other[:1]).amax() > SAME for other in kept):
                kept.append(sets[i])
        if recipe.bundled:
            for i, cameras in enumerate(kept):
                kept[i] = error.prior.bundle(error.condition, cameras, recipe.radius)
                on_step((i + 1) / len(kept))
        likely = torch.stack(kept)
        losses = self.loss(likely, draws).sum(0)
        order = losses.argsort(stable=True)
        return Beliefs(likely[order], torch.softmax(-losses[order] / TEMPERATURE, dim=0))

    def loss(self, sets: Tensor, draws: list[Draw]) -> Tensor:
        """Noise error (D, B) of sets of cameras (B, n, 3), over the pairs that are compared."""
        return self._error(*self._pairs(sets), draws).unflatten(1, (len(sets), -1)).sum(2)

    def confidence(self, best: Tensor, view: int, others: Tensor, draws: list[Draw]) -> float:
        """Probability that one view's pose is better than its other hypotheses (H, 3), the rest as in `best`.

        That of a paired comparison over the draws, with the best of the others.
        """
        others = others + best[0]
        others = others[angle_between(others, best[view]) >= APART / 2]
        if not len(others):
            return 1.0
        sets = best.repeat(1 + len(others), 1, 1)
        sets[1:, view] = others
        touching = (self._first == view) | (self._second == view)
        pairs = self._pairs(sets, touching)
        losses = self._error(*pairs, draws).unflatten(1, (len(sets), -1)).sum(2)
        better = losses[:, 1:] - losses[:, :1]
        deviation = better.std(0) / len(draws) ** 0.5
        return float(torch.special.ndtr(better.mean(0) / deviation.clamp_min(1e-12)).min())

    def _cameras(self, poses: Tensor, views: Sequence[int]) -> Tensor:
        """See `ViewCondition.cameras`."""
        return self._error.condition.cameras(poses, torch.tensor(views, device=poses.device))

    def _pairs(self, sets: Tensor, which: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of views that are compared in sets of cameras (B, n, 3): (B E,), (B E,) and (B E, 2, 3)."""
        first, second = self._first, self._second
        if which is not None:
            first, second = first[which], second[which]
        cameras = torch.stack([sets[:, first], sets[:, second]], dim=2).flatten(0, 1)
        return first.repeat(len(sets)), second.repeat(len(sets)), cameras

    def _tables(self, options: list[Tensor]) -> dict[tuple[int, int], Tensor]:
        """Noise error (H_i, H_j) of every compared pair of views (i, j) in every pair of hypotheses."""
        keys = list(zip(self._first.tolist(), self._second.tolist(), strict=True))
        shapes = [(len(options[i]), len(options[j])) for i, j in keys]
        poses = [
            torch.stack([options[i][:, None].expand(*shape, 3), options[j].expand(*shape, 3)], dim=2).flatten(
                0, 1
            )
            for (i, j), shape in zip(keys, shapes, strict=True)
        ]
        counts = [len(each) for each in poses]
        first = self._first.repeat_interleave(torch.tensor(counts))
        second = self._second.repeat_interleave(torch.tensor(counts))
        rows = torch.cat([self._cameras(each, key) for each, key in zip(poses, keys, strict=True)])
        draws = self._error.draws(GRID_DRAWS, self._generator)
        total = self._error(first, second, rows, draws).sum(0)
        return {
            key: part.view(shape) for key, part, shape in zip(keys, total.split(counts), shapes, strict=True)
        }
