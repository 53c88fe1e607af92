"""A view-conditioned prior over finitely many objects, whose score has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.cameras import FIELD_OF_VIEW, camera_axes
from ..priors.base import PosedCondition, ViewCondition, equal_variance

BACK = 12.0  # decay of a point's opacity towards the far side, per unit of distance


class FiniteObjectsPrior:
    """The exact score of the views of objects made of soft coloured points, for tests.

    A view is a sum of Gaussian spots, one for each point, on a white ground; points on the far side of the
    object fade. The latent is the image. A known view shows object o from camera c of a list with probability
    proportional to exp(-|x - view(o, c)|^2 / (2 tolerance^2)). The target view from the camera c + pose is then
    view(o, c + pose) plus noise of standard deviation `spread`: a mixture of Gaussians, whose posterior mean
    given z_t is a weighted mean of the views (Bayes' rule), differentiable in the pose.

    Args:
        points: (M, P, 3) points of M objects.
        colours: (M, P, 3) colours of the points, in [-1, 1].
        cameras: (C, 3) cameras that known views may be taken from.
        alphas_cumprod: (T,) cumulative alphas of the noise schedule.
        image_size: pixels along one side.
        width: standard deviation of a spot, in the units of the points at the distance of the object.
        spread: standard deviation of the target view.
        tolerance: standard deviation of the known view.
    """

    temperature = 1.0

    def __init__(
        self,
        points: Tensor,
        colours: Tensor,
        cameras: Tensor,
        alphas_cumprod: Tensor,
        image_size: int = 16,
        width: float = 0.12,
        spread: float = 0.02,
        tolerance: float = 0.1,
    ) -> None:
        self.points, self.colours, self.cameras = points, colours, cameras
        self.alphas_cumprod, self.image_size = alphas_cumprod, image_size
        self.latent_shape = (3, image_size, image_size)
        self.width, self.spread, self.tolerance = width, spread, tolerance

    def encode(self, x: Tensor) -> Tensor:
        """`x`: the latent is the image."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """`z`: the latent is the image."""
        return z

    def view(self, index: Tensor, camera: Tensor) -> Tensor:
        """Images (N, 3, S, S) of the objects `index` (N,) from `camera` (N, 3), differentiable in `camera`."""
        position, right, up, forward = (axis[:, None] for axis in camera_axes(camera))
        points = self.points[index]
        offset = points - position
        depth = (offset * forward).sum(-1)
        across, upwards = (offset * right).sum(-1) / depth, (offset * up).sum(-1) / depth
        edge = torch.tan(torch.as_tensor(FIELD_OF_VIEW / 2, dtype=points.dtype))
        centres = ((torch.arange(self.image_size, dtype=points.dtype) + 0.5) / self.image_size * 2 - 1) * edge
        width = self.width / camera[:, 2, None, None]
        columns = (-0.5 * ((centres - across[..., None]) / width) ** 2).exp()
        rows = (-0.5 * ((-centres - upwards[..., None]) / width) ** 2).exp()
        near = torch.sigmoid(-BACK * (points * forward).sum(-1))
        spots = near[..., None] * (self.colours[index] - 1)
        return 1 + torch.einsum("npc,npy,npx->ncyx", spots, rows, columns)

    def framing(self, x: Tensor) -> None:
        """None: it estimates no framing."""

    def condition(self, x: Tensor) -> ViewCondition:
        """Log-probabilities (N, M * C) of object and camera of the known views `x` (N, 3, S, S)."""
        squared = (x[:, None] - self.view(*self._pairs())).square().sum((2, 3, 4))
        return ViewCondition((torch.log_softmax(-squared / (2 * self.tolerance**2), dim=1),))

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """`condition` unchanged."""
        return condition

    def bundle(self, condition: ViewCondition, cameras: Tensor, radius: bool) -> Tensor:
        """`cameras` unchanged: it represents no shape."""
        return cameras

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> None:
        """None: it predicts no occupancy."""

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """Log-probabilities and target views (B, M * C, 3, S, S) of all objects and cameras."""
        (log_prior,) = condition.parts
        index, camera = self._pairs()
        cameras = (camera[None] + pose[:, None]).flatten(0, 1)
        views = self.view(index.repeat(len(pose)), cameras).unflatten(0, (len(pose), len(index)))
        return PosedCondition((log_prior, views), equal_variance(pose))

    def score(self, posed: PosedCondition, z: Tensor) -> None:
        """None: there is no network that scores poses."""

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """(z_t - sqrt(abar_t) E[z0 | z_t]) / sqrt(1 - abar_t), exactly; see `ViewPrior.predict_noise`."""
        log_prior, views = posed.parts
        abar = self.alphas_cumprod[t]
        variance = abar * self.spread**2 + 1 - abar
        squared = (z_t[:, None] - abar.sqrt() * views).square().sum((2, 3, 4))
        weights = torch.softmax(log_prior - squared / (2 * variance), dim=1)
        mean = torch.einsum("bk,bkchw->bchw", weights, views)
        clean = mean + abar.sqrt() * self.spread**2 / variance * (z_t - abar.sqrt() * mean)
        return (z_t - abar.sqrt() * clean) / (1 - abar).sqrt()

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """All pairs of an object (M * C,) and a camera (M * C, 3)."""
        objects, cameras = len(self.points), len(self.cameras)
        return torch.arange(objects).repeat_interleave(cameras), self.cameras.repeat(objects, 1)
