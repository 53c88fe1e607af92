"""The noise-prediction error between two known views, which scores their relative pose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry.cameras import relative_pose
from ..priors.base import MAX_BATCH, PosedCondition, ViewCondition, ViewPrior
from .features import FeatureMatches

# Deviations from the prior's estimates that cost as much as failing to predict the noise of one pixel, where
# the prior expects the usual errors of its estimates.
POLAR_SCALE = math.radians(8)
PRINCIPAL_SCALE = 0.015  # in world units
DISTANCE_SCALE = 0.1  # of the distance of a crop from `RADIUS`, in world units
# Usual standard deviations of these errors, and bounds of others in units of these.
POLAR_USUAL, PRINCIPAL_USUAL, DISTANCE_USUAL = math.radians(12), 0.036, 0.19
DEVIATIONS = 1 / 3, 2.0
SCORED = 50.0  # noise error that counts as much as a score of 1
POLAR_SPREAD = math.radians(10)  # the same as the scale of a Cauchy distribution, in scores
MATCHED = 0.5  # score of a nat of evidence by matches, as wrong ones are not independent
MIRRORED = (1.0, -1.0, 1.0, -1.0, 1.0)  # factors of the values of a camera for a mirrored view
NOISIEST, CLEAREST = 850, 250  # range of timesteps at which the error is informative about the pose


@dataclass(frozen=True)
class Draw:
    """One noise level, and one draw of the noise of all views.

    Attributes:
        t: timestep.
        noise: (n, c, h, w) standard normal noise; None for the expectation over the noise.
    """

    t: int
    noise: Tensor | None


@dataclass(frozen=True)
class PairError:
    """Squared error of the noise predicted in one known view, given another one and their relative pose.

    A view is predicted best from the pose that it was taken from; both directions of a pair are added. Source:
    Cheng et al. 2023, *ID-Pose*. If the prior predicts a mean and a variance of a view without noise, the
    expected error over the noise follows in closed form, without a call of the network (`expected_error`).
    Squared deviations from what the prior estimates of each view are added, so that a pair that is predicted
    badly from everywhere does not drift: polar angles in units of `POLAR_SCALE` and, for crops, principal
    points and distances in units of `PRINCIPAL_SCALE` and `DISTANCE_SCALE`, all in proportion to the error that
    the prior expects of each (`ViewCondition.deviation`). Where poses are scored, the log-likelihood of
    the deviations of polar angles counts as well: two cameras that drift in height, one up and the other down,
    explain each other nearly as well as the right ones.

    Attributes:
        prior: view-conditioned prior.
        condition: what the prior keeps of the n known views.
        latents: (n, c, h, w) latents of the known views.
        mirrored: the same of the mirror images of the views, whose scores count as well; None for none.
        matches: matches between the pictures, whose evidence counts with the scores if the prior estimates
            polar angles; None for none.
    """

    prior: ViewPrior
    condition: ViewCondition
    latents: Tensor
    mirrored: PairError | None = None
    matches: FeatureMatches | None = None

    def draws(self, count: int, generator: torch.Generator, rough: bool = False) -> list[Draw]:
        """Makes `count` draws, from the noisiest level to the clearest.

        Args:
            count: number of draws.
            generator: source of the noise.
            rough: whether to take the expectation over the noise, if the prior predicts views without noise.
        """
        drawn = []
        for i in range(count):
            t = round(NOISIEST + (CLEAREST - NOISIEST) * (i + 0.5) / count)
            if rough and self.prior.temperature < 1:
                drawn.append(Draw(t, None))
                continue
            noise = torch.randn(self.latents.shape, generator=generator, dtype=self.latents.dtype)
            drawn.append(Draw(t, noise.to(self.latents.device)))
        return drawn

    def __call__(
        self, first: Tensor, second: Tensor, cameras: Tensor, draws: Sequence[Draw], scored: bool = False
    ) -> Tensor:
        """Errors (D, R) of pairs of views.

        Args:
            first, second: (R,) indices of views.
            cameras: (R, 2, 3) or (R, 2, 5) cameras of both views, as returned by `ViewCondition.cameras`.
            draws: D draws of the noise.
            scored: whether the scores of the poses count, too, if the prior has any (`ViewPrior.score`).
        """
        known, target, both = _directions(first, second, cameras)
        parts = torch.arange(len(known)).split(MAX_BATCH)
        with torch.no_grad():
            errors = [self._rows(known[part], target[part], both[part], draws, scored) for part in parts]
            total = torch.cat(errors, dim=1).unflatten(1, (2, -1)).sum(1)
            return total - SCORED * self._evidence(first, second, cameras) if scored else total

    def misfit(self, first: Tensor, second: Tensor, cameras: Tensor) -> Tensor | None:
        """Mean squared error of a view predicted from another one, in units of the variance predicted for it.

        It is about 1 or less where the prior predicts a view as well as it expects to.

        Args:
            first, second, cameras: see `__call__`.

        Returns:
            (R,), the larger one of both directions of each pair; None if the prior predicts no mean.
        """

        def misfit(posed: PosedCondition, z: Tensor) -> Tensor | None:
            return (
                None if posed.mean is None else ((posed.mean - z).square() / posed.variance).flatten(1).mean(1)
            )

        both = self._of_predictions(first, second, cameras, misfit)
        return None if both is None else both.amax(0)

    def scores(self, first: Tensor, second: Tensor, cameras: Tensor) -> Tensor | None:
        """Scores of poses (`ViewPrior.score`), summed over both directions, averaged over mirror images.

        The evidence of matches and that of estimated polar angles are added.

        Args:
            first, second, cameras: see `__call__`.

        Returns:
            (R,); None if the prior has no network for them.
        """
        both = self._of_predictions(first, second, cameras, self.prior.score)
        if both is None:
            return None
        heights = self._height_evidence(first, cameras[:, 0]) + self._height_evidence(second, cameras[:, 1])
        score = both.sum(0) + heights
        if self.mirrored is not None:
            mirror = cameras * cameras.new_tensor(MIRRORED)[: cameras.shape[-1]]
            mirrored = self.mirrored.scores(first, second, mirror)
            score = score if mirrored is None else (score + mirrored) / 2
        return score + self._evidence(first, second, cameras)

    def _height_evidence(self, known: Tensor, cameras: Tensor) -> Tensor:
        """Log-likelihood (R,), less its largest value, of the polar angles of cameras (R, 3) or (R, 5)."""
        if self.condition.polar is None:
            return torch.zeros_like(cameras[:, 0])
        return -(self._drift(known, cameras) * POLAR_SCALE / POLAR_SPREAD).square().log1p()

    def _drift(self, known: Tensor, cameras: Tensor) -> Tensor:
        """Deviations (R,) of polar angles from estimates in units of `POLAR_SCALE` for each estimate."""
        assert self.condition.polar is not None
        drift = (cameras[:, :1] - self.condition.polar[known, None]) / POLAR_SCALE
        return (drift / self._uncertainty(known, slice(0, 1), POLAR_USUAL))[:, 0]

    def _uncertainty(self, known: Tensor, values: slice, usual: float) -> Tensor | float:
        """Standard deviations (R, k) that the prior expects of estimated values, in units of the usual one."""
        deviation = self.condition.deviation
        return 1.0 if deviation is None else (deviation[known, values] / usual).clamp(*DEVIATIONS)

    def _evidence(self, first: Tensor, second: Tensor, cameras: Tensor) -> Tensor:
        """`FeatureMatches.evidence` (R,) in units of scores, 0 without any."""
        if self.matches is None or self.condition.polar is None:
            return cameras.new_zeros(len(cameras))
        return MATCHED * self.matches.evidence(first, second, cameras)

    def _evidence_gradient(self, first: Tensor, second: Tensor, cameras: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = cameras.detach().requires_grad_()
            found = self._evidence(first, second, moved).sum()
            return torch.autograd.grad(found, moved)[0] if found.requires_grad else torch.zeros_like(cameras)

    def _of_predictions(
        self,
        first: Tensor,
        second: Tensor,
        cameras: Tensor,
        value: Callable[[PosedCondition, Tensor], Tensor | None],
    ) -> Tensor | None:
        """`value` (2, R) of the predictions of both views of pairs and of their latents; None if it is None."""
        known, target, both = _directions(first, second, cameras)
        values = []
        with torch.no_grad():
            for part in torch.arange(len(known)).split(MAX_BATCH):
                here, there = both[part].unbind(1)
                posed = self.prior.posed(self.condition[known[part]].at(here), relative_pose(there, here))
                found = value(posed, self.latents[target[part]])
                if found is None:
                    return None
                values.append(found)
        return torch.cat(values).unflatten(0, (2, -1))

    def gradient(self, first: Tensor, second: Tensor, cameras: Tensor, draw: Draw) -> Tensor:
        """Gradients of the errors with respect to `cameras`, in the same shape."""
        known, target, both = _directions(first, second, cameras)
        gradients: list[Tensor] = []
        for part in torch.arange(len(known)).split(MAX_BATCH):
            with torch.enable_grad():
                moved = both[part].detach().requires_grad_()
                error = self._rows(known[part], target[part], moved, [draw]).sum()
                gradients += torch.autograd.grad(error, moved)
        there, back = torch.cat(gradients).chunk(2)
        return there + back.flip(1) - SCORED * self._evidence_gradient(first, second, cameras)

    def _rows(
        self, known: Tensor, target: Tensor, cameras: Tensor, draws: Sequence[Draw], scored: bool = False
    ) -> Tensor:
        here, there = cameras.unbind(1)
        posed = self.prior.posed(self.condition[known].at(here), relative_pose(there, here))
        penalty = torch.zeros_like(here[:, 0])
        if self.condition.polar is not None:
            penalty = self._drift(known, here).square()
        if self.condition.principal is not None:
            offset = (here[:, 3:] - self.condition.principal[known]) / PRINCIPAL_SCALE
            away = here[:, 2:3] / DISTANCE_SCALE
            offset = offset / self._uncertainty(known, slice(3, 5), PRINCIPAL_USUAL)
            away = away / self._uncertainty(known, slice(2, 3), DISTANCE_USUAL)
            penalty = penalty + torch.cat([offset, away], 1).square().sum(1)
        if scored and (score := self.prior.score(posed, self.latents[target])) is not None:
            penalty = penalty - SCORED * (score + self._height_evidence(known, here))
        errors = []
        for draw in draws:
            abar, z = float(self.prior.alphas_cumprod[draw.t]), self.latents[target]
            if draw.noise is None:
                assert posed.mean is not None
                error = expected_error(z, posed.mean, posed.variance, abar)
            else:
                noise = draw.noise[target]
                z_t = abar**0.5 * z + (1 - abar) ** 0.5 * noise
                error = (self.prior.predict_noise(z_t, draw.t, posed) - noise).square()
            errors.append(error.flatten(1).sum(1) + penalty)
        return torch.stack(errors)


def expected_error(z: Tensor, mean: Tensor, variance: Tensor, abar: float) -> Tensor:
    """Expected squared error (B, c, h, w), over the noise, of the noise predicted for z0 ~ N(mean, variance).

    With v the variance, the error of the posterior mean of z0, given z_t = sqrt(abar) z + sqrt(1 - abar) noise,
    is ((1 - abar) (mean - z) + v sqrt(abar (1 - abar)) noise) / (v abar + 1 - abar); the error of the predicted
    noise is sqrt(abar / (1 - abar)) times as large. Source: the posterior of a Gaussian, Bishop 2006, Eq.
    2.116.

    Args:
        z: (B, c, h, w) true latents.
        mean, variance: (B, c, h, w) or broadcastable; the predicted distribution of the latents.
        abar: cumulative alpha of the timestep, below 1.
    """
    total = variance * abar + 1 - abar
    return abar * ((1 - abar) * (mean - z).square() + abar * variance.square()) / total.square()


def _directions(first: Tensor, second: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Known and target views of pairs in both directions, (2 R,) each, and their cameras (2 R, 2, 3)."""
    both = torch.cat([cameras, cameras.flip(1)])
    return torch.cat([first, second]), torch.cat([second, first]), both
