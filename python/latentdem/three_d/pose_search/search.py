"""Search for the poses: a coarse grid, several hypotheses, refined together and judged by the noise error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..cameras import straight
from ..config import ReconstructionConfig
from ..poses import Beliefs, MovingPoses, angle_between
from .candidates import APART, RIVALS, Places, around, distinct, edges, grid, pairs_of, spread
from .noise_error import Draw, PairError

GRID_DRAWS, FINAL_DRAWS = 4, 24
MERGED = math.radians(10)  # places of a view nearer to each other than this are one
SAME = math.radians(1.5)  # sets of cameras nearer to each other than this are one
TEMPERATURE = 0.4  # noise error by which a set is e times less likely
UNLIKELY = 6.0  # in units of that, what is worse, also after the shape was moved, too, is given up
POSSIBLE = 100.0  # rough noise error, by which what is worse is given up while not all cameras have moved

Step = Callable[[float], None]
Anew = Callable[[Tensor], PairError]


class PoseSearch:
    """Finds the poses of n views relative to the first, once.

    Args:
        error: of a pair of views.
        recipe: constants.
        generator: of the noise; the same noise judges all candidates.
        anew: where principal points are open, what the error is once the views are cropped around the origin,
            as cameras (n, 5) see it.
    """

    def __init__(
        self,
        error: PairError,
        recipe: ReconstructionConfig,
        generator: torch.Generator,
        anew: Anew | None = None,
    ) -> None:
        self._error, self._recipe, self._generator, self._anew = error, recipe, generator, anew
        self._views = torch.arange(len(error.latents))
        self._rough = len(self._views) > 2  # a pair has no other views to be judged by
        self._crop: Tensor | None = None

    def __call__(self, on_step: Step = lambda done: None) -> tuple[Beliefs, Tensor]:
        """What is believed of the cameras, and the confidence (n,) that the best are better than the others.

        The first azimuth and distance are 0, and its polar angle, too, unless the prior estimates it. Where
        principal points are open, they and the distances are those of the crops that `anew` was told.

        Args:
            on_step: called with the finished share of the search.
        """
        found = self.pair if len(self._views) == 2 else self.many
        sets, rivals = found(within(on_step, 0.0, 0.8))
        draws = self._draws(FINAL_DRAWS, exact=True)
        beliefs = self.believed(sets, draws, within(on_step, 0.8, 0.95))
        confidence = [1.0]
        for view, others in enumerate(rivals, 1):
            confidence.append(self.confidence(beliefs.cameras[0], view, others, draws))
            on_step(0.95 + 0.05 * view / len(rivals))
        if self._crop is not None:
            crop = self._crop[None, :, 2:].expand(len(beliefs.cameras), -1, -1)
            beliefs = replace(beliefs, cameras=torch.cat([beliefs.cameras[..., :2], crop], -1))
        return beliefs, torch.tensor(confidence)

    def pair(self, on_step: Step = lambda done: None) -> tuple[Tensor, list[Tensor]]:
        """Sets of cameras (B, 2, 3) of two views, and the poses (H, 3) that the second was tried at.

        The hypotheses themselves compete, too, so that an M-step that led astray is forgotten.
        """
        pairs, views, steps = self._hypothetical(1), self._views, self._recipe.refinements
        share = 1.0 if self._anew is None else 0.7
        moved = self.refine(pairs, views, steps, exact=True, on_step=within(on_step, 0.0, share))
        sets = torch.cat([moved, pairs])
        if self._anew is not None:
            self._crop_anew(moved[self._judged(moved, views, exact=True).argmin()])
            moved, sets = straight(moved), straight(sets)
            last = within(on_step, share, 1.0)
            moved = self.refine(moved, views, steps // 2, (0.5, 0.0), True, last)
            sets = torch.cat([moved, sets])
        return sets, [moved[:, 1] - moved[:, 0]]

    def many(self, on_step: Step = lambda done: None) -> tuple[Tensor, list[Tensor]]:
        """Sets of cameras (B, n, 3) of more views, and poses (P, 3) that each but the first was tried at."""
        others, recipe = self._views[1:].tolist(), self._recipe
        share = 0.6 / len(others)
        places = [self.places(j, within(on_step, share * (j - 1), share * j)) for j in others]
        sets = self.joined(places, within(on_step, 0.6, 0.7))
        sets, _ = self.moved(sets, self._views, on_step=within(on_step, 0.7, 0.8))
        if self._anew is not None:
            self._crop_anew(sets[0])
            sets = straight(sets)
            places = [Places(straight(place.pairs), place.losses) for place in places]
        settled, rivals = self.settled(sets[0], places, within(on_step, 0.8, 0.85))
        if not torch.equal(settled, sets[0]):
            sets, _ = self.moved(settled[None], self._views)
        last = within(on_step, 0.85, 1.0)
        moved = self.refine(sets, self._views, recipe.refinements // 2, (0.5, 0.0), True, last)
        return torch.cat([moved, sets]), rivals

    def _crop_anew(self, cameras: Tensor) -> None:
        """From here on the views are cropped as cameras (n, 5) see them, and their principal points known."""
        assert self._anew is not None
        self._error, self._crop = self._anew(cameras), cameras

    def hypotheses(self, view: int) -> Tensor:
        """The best candidates (H, 3) of the grid for one view, judged by its pair with the first alone."""
        poses, both = grid().to(self._error.latents), torch.tensor([0, view])
        sets = torch.stack([torch.zeros_like(poses), poses], 1)
        losses = self._judged(self._cameras(sets, both), both)
        return poses[distinct(sets, losses, APART, self._recipe.hypotheses)]

    def _hypothetical(self, view: int) -> Tensor:
        """Cameras (H, 2, 3) of the first view and another one at its hypotheses."""
        poses = self.hypotheses(view)
        return self._cameras(torch.stack([torch.zeros_like(poses), poses], 1), torch.tensor([0, view]))

    def places(self, view: int, on_step: Step = lambda done: None) -> Places:
        """Where one view may be by its pair with the first alone: its hypotheses, moved."""
        return Places(*self.moved(self._hypothetical(view), torch.tensor([0, view]), on_step))

    def joined(self, places: Sequence[Places], on_step: Step = lambda done: None) -> Tensor:
        """The best sets of cameras (B, n, 3), out of the places of each view but the first.

        The views join one by one, that whose place is surest first. A new one is compared with the first view
        and with the two that joined before it, which closes triangles: two relative poses must add up to the
        third. The best sets, refined in the camera of the new view, go on.
        """
        recipe = self._recipe
        options = [distinct(place.pairs, place.losses, MERGED, recipe.hypotheses) for place in places]
        order = sorted(range(len(places)), key=lambda i: -places[i].margin)
        sets, losses = (part[options[order[0]]] for part in (places[order[0]].pairs, places[order[0]].losses))
        views = torch.tensor([0, 1 + order[0]])
        for count, i in enumerate(order[1:], 2):
            new = places[i].poses[options[i]]
            views = torch.cat([views, torch.tensor([1 + i])])
            poses = (sets - sets[:, :1]).repeat_interleave(len(new), 0)
            poses = torch.cat([poses, new.repeat(len(sets), 1)[:, None]], 1)
            losses = losses.repeat_interleave(len(new))
            sets = self._cameras(poses, views)
            best = distinct(sets, losses + self._judged(sets, views, only=count), MERGED, recipe.hypotheses)
            sets, losses = self.refine(sets[best], views, recipe.refinements // 3, only=count), losses[best]
            losses = losses + self._judged(sets, views, only=count)
            best = distinct(sets, losses, SAME, recipe.believed, POSSIBLE)
            sets, losses = sets[best], losses[best]
            on_step(count / len(order))
        return sets[:, views.argsort()]

    def moved(self, sets: Tensor, views: Tensor, on_step: Step = lambda done: None) -> tuple[Tensor, Tensor]:
        """The sets of cameras (B, m, 3) of m views after half of the M-steps, the best first, with errors (B,).

        What is much worse than the best is given up. Each set competes with what became of it.
        """
        moved = self.refine(sets, views, self._recipe.refinements // 2, (1.0, 0.5), on_step=on_step)
        before, after = self._judged(torch.cat([sets, moved]), views).chunk(2)
        sets, losses = torch.where((after < before)[:, None, None], moved, sets), after.minimum(before)
        best = distinct(sets, losses, SAME, len(sets), POSSIBLE)
        return sets[best], losses[best]

    def settled(
        self, cameras: Tensor, places: Sequence[Places], on_step: Step = lambda done: None
    ) -> tuple[Tensor, list[Tensor]]:
        """Cameras (n, 3), each of which has been compared with other places of its view.

        Where views join one by one, a wrong one may be what led a later one astray. That whose place was least
        sure comes first. The other places of a view of three are those by its pair with the first. That may
        show another side: of more views they are those of a ring that agree best with it and two sure ones.
        They are moved, and judged by all other views.

        Returns:
            The cameras, and of each view but the first the poses (P, 3) that were compared with its own.
        """
        rivals = [place.poses[:0] for place in places]
        order = sorted(range(len(places)), key=lambda i: places[i].margin)
        exact = len(places) > 2
        for count, i in enumerate(order, 1):
            view = i + 1
            surest = [other + 1 for other in reversed(order) if other != i]
            views, other = self._elsewhere(cameras, view, places[i], surest)
            if len(other):
                last = views.index(view)
                index = torch.tensor(views)
                sets = cameras[index].repeat(1 + len(other), 1, 1)
                sets[1:, last] = cameras[0] + other
                sets[1:] = self.refine(sets[1:], index, self._recipe.refinements // 3, only=last)
                whole = cameras.repeat(len(sets), 1, 1)
                whole[:, view] = sets[:, last]
                likeliest = int(self.judged_by_all(whole, view, exact).argmin())
                poses = sets[:, last] - cameras[0]
                rivals[i] = poses[torch.arange(len(poses)) != likeliest]
                if likeliest > 0:
                    cameras = cameras.clone()
                    cameras[view] = sets[likeliest, last]
            on_step(count / len(order))
        return cameras, rivals

    def _elsewhere(
        self, cameras: Tensor, view: int, place: Places, surest: list[int]
    ) -> tuple[list[int], Tensor]:
        """The views that one is compared with, itself among them, and its other places (R, 3); see `settled`.

        Args:
            surest: the other views but the first, those whose places are surest first.
        """
        pose = cameras[view] - cameras[0]
        if len(surest) < 2 or place.margin == math.inf:
            return self._views.tolist(), place.rivals(pose)
        views = [*spread([0, *surest], cameras), view]
        index = torch.tensor(views)
        ring = around(cameras[index])
        losses = self._judged(ring, index, exact=True, only=len(views) - 1)
        poses = ring[distinct(ring, losses, APART, RIVALS + 1), -1] - cameras[0]
        return views, poses[angle_between(poses, pose) >= APART / 2]

    def refine(
        self,
        sets: Tensor,
        views: Tensor,
        steps: int,
        rates: tuple[float, float] = (1.0, 0.0),
        exact: bool = False,
        on_step: Step = lambda done: None,
        only: int | None = None,
    ) -> Tensor:
        """The sets of cameras (B, m, 3) of m views after some M-steps at these, all sets in one batch.

        Where the prior estimates polar angles, that of the first moves, too. The latent of a known view plays
        the part of the fused one in Algorithm 2, so that the alignment loss is the noise error.

        Args:
            rates: of the first step and of the one that would be next, in units of `search_rate`.
            exact: whether the error is, also where a rough one may be.
            only: a view whose camera alone moves.
        """
        first = self._error.condition.polar is not None and only is None
        radius = self._recipe.radius or sets.shape[-1] > 3  # a crop's size says nothing of the distance
        moving = MovingPoses(sets, radius, first)
        sides = edges(len(views), only)
        for i, draw in enumerate(self._draws(steps, exact)):
            poses = moving.poses
            gradient = self._error.gradient(*pairs_of(poses, views, *sides), draw)
            gradient = gradient.view(len(sets), -1, 2, sets.shape[-1])
            total = torch.zeros_like(poses)
            for side, index in enumerate(sides):
                total.index_add_(1, index.to(poses.device), gradient[:, :, side])
            if only is not None:
                total[:, torch.arange(len(views)) != only] = 0
            rate = rates[0] + (rates[1] - rates[0]) * i / steps
            moving.move(total, self._recipe.search_rate * rate)
            on_step((i + 1) / steps)
        return moving.poses

    def believed(self, sets: Tensor, draws: list[Draw], on_step: Step = lambda done: None) -> Beliefs:
        """The most likely of the sets of cameras (B, n, 3), each moved together with the shape by the prior.

        Their probabilities are as if the noise error, over `TEMPERATURE`, was the negative log-likelihood. What
        is nearer than `SAME` to a better one is left out, and what is unlikely by `UNLIKELY` times that. For a
        prior whose views are samples, not means, it is the best one alone.
        """
        recipe, error = self._recipe, self._error
        most = min(recipe.hypotheses, recipe.believed if error.prior.temperature < 1 else 1)
        losses = self.losses(sets, self._views, draws).mean(0)
        likely = sets[distinct(sets, losses, SAME, most, UNLIKELY * TEMPERATURE)]
        if recipe.bundled:
            for i, cameras in enumerate(likely):
                likely[i] = error.prior.bundle(error.condition, cameras, recipe.radius)
                on_step((i + 1) / len(likely))
        losses = self.losses(likely, self._views, draws).mean(0)
        order = losses.argsort(stable=True)
        order = order[losses[order] <= losses.min() + UNLIKELY * TEMPERATURE]
        return Beliefs(likely[order], torch.softmax(-losses[order] / TEMPERATURE, dim=0))

    def losses(self, sets: Tensor, views: Tensor, draws: list[Draw], only: int | None = None) -> Tensor:
        """Noise error (D, B) of sets of cameras (B, m, 3) of m views, over the pairs that are compared.

        Args:
            only: a view whose pairs alone count.
        """
        errors = self._error(*pairs_of(sets, views, *edges(len(views), only)), draws)
        return errors.unflatten(1, (len(sets), -1)).sum(2)

    def confidence(self, best: Tensor, view: int, others: Tensor, draws: list[Draw]) -> float:
        """Probability that one view's pose is better than others (P, 3), the rest as in `best` (n, 3).

        That of a paired comparison over the draws, with the best of those that are not near it.
        """
        others = others + best[0]
        others = others[angle_between(others, best[view]) >= APART / 2]
        if not len(others):
            return 1.0
        sets = best.repeat(1 + len(others), 1, 1)
        sets[1:, view] = others
        losses = self.losses(sets, self._views, draws, only=view)
        better = losses[:, 1:] - losses[:, :1]
        deviation = better.std(0) / len(draws) ** 0.5
        return float(torch.special.ndtr(better.mean(0) / deviation.clamp_min(1e-12)).min())

    def _judged(self, sets: Tensor, views: Tensor, exact: bool = False, only: int | None = None) -> Tensor:
        """`losses` (B,), the mean of a few draws."""
        return self.losses(sets, views, self._draws(GRID_DRAWS, exact), only).mean(0)

    def judged_by_all(self, sets: Tensor, view: int, exact: bool) -> Tensor:
        """Noise error (B,) of the pairs of one view with all others, in sets of cameras (B, n, 3)."""
        others = self._views[self._views != view]
        pairs = pairs_of(sets, self._views, others, torch.full_like(others, view))
        errors = self._error(*pairs, self._draws(GRID_DRAWS, exact))
        return errors.unflatten(1, (len(sets), -1)).sum(2).mean(0)

    def _draws(self, count: int, exact: bool = False) -> list[Draw]:
        return self._error.draws(count, self._generator, rough=self._rough and not exact)

    def _cameras(self, poses: Tensor, views: Tensor) -> Tensor:
        """See `ViewCondition.cameras`."""
        return self._error.condition.cameras(poses, views.to(poses.device))


def within(on_step: Step, start: float, end: float) -> Step:
    """What a part of the work calls, between two shares of the whole."""
    return lambda done: on_step(start + (end - start) * done)
