"""What the pose-free reconstruction asks of a view-conditioned prior, and the one that ships."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem_ext import accelerate_vae

from ..checkpoints import load_network, load_schedule
from ..errors import UserError
from ..priors.autoencoder import EmbeddedAutoencoder
from ..priors.embedded import computes_in_bfloat16
from ..priors.parametrization import Parametrization
from .cameras import POLAR_RANGE, RADIUS
from .view_network import ViewNetwork, Volume

EMBEDDED_3D_WEIGHTS = Path(__file__).parent.parent / "weights" / "embedded_3d"


@dataclass(frozen=True)
class ViewCondition:
    """What a prior keeps of N known views, computed once for all timesteps and poses.

    Attributes:
        parts: tensors whose first dimension counts the views; what they hold is the prior's own affair.
        polar: (N,) polar angles of their cameras, for a prior whose predictions depend on them, as it estimates
            them from each view alone; None for others.
    """

    parts: tuple[Tensor, ...]
    polar: Tensor | None = None

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: Tensor | slice) -> ViewCondition:
        """The views at `index`, also several times each, as for several hypotheses of one view."""
        parts = tuple(part[index] for part in self.parts)
        return ViewCondition(parts, None if self.polar is None else self.polar[index])

    def at(self, polar: Tensor) -> ViewCondition:
        """The same with other polar angles (N,), if it has any."""
        return self if self.polar is None else replace(self, polar=polar)

    def cameras(self, poses: Tensor, views: Tensor) -> Tensor:
        """Cameras (..., m, 3) of m views in these poses, up to a common azimuth and distance.

        Where the prior estimates polar angles, they are those that agree best with all m estimates; relative
        poses leave them open, and elsewhere they count from that of the reference.

        Args:
            poses: (..., m, 3) relative to a reference.
            views: (m,) which views they are of.
        """
        if self.polar is None:
            return poses
        reference = (self.polar[views] - poses[..., 0]).mean(-1, keepdim=True).clamp(*POLAR_RANGE)
        return poses + F.pad(reference[..., None], (0, 2))


@dataclass(frozen=True)
class PosedCondition:
    """What a prior keeps of B known views and of the poses of B wanted ones, computed once for all timesteps.

    Attributes:
        parts: tensors, differentiable in the poses; what they hold is the prior's own affair.
        variance: (B, 1, h, w), or with 1 for h and w, how uncertain the known views leave each pixel of the
            wanted latents, up to a common factor. Views are weighed by it where they are fused.
        mean: (B, c, h, w) the wanted latents as they are foretold without any noise, for a prior that does so;
            None for others.
    """

    parts: tuple[Tensor, ...]
    variance: Tensor
    mean: Tensor | None = None

    def __getitem__(self, index: Tensor) -> PosedCondition:
        """The rows at `index`."""
        parts = tuple(part[index] for part in self.parts)
        return PosedCondition(parts, self.variance[index], None if self.mean is None else self.mean[index])


@runtime_checkable
class ViewPrior(Protocol):
    """A latent diffusion model of a view of an object, given another view and their relative pose.

    Images are (B, 3, S, S) in [-1, 1] on a white ground, S = `image_size`; latents (B, c, h, w) of
    `latent_shape`. A pose is (polar, azimuth, radius) of the wanted camera less that of the known view,
    angles in radians (see cameras.py).

    Attributes:
        alphas_cumprod: (T,) cumulative alphas of the training schedule.
        image_size: S.
        latent_shape: (c, h, w).
        temperature: of the noise that views should begin with, 1 for samples of the prior.
    """

    alphas_cumprod: Tensor
    temperature: float
    image_size: int
    latent_shape: tuple[int, int, int]

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, c, h, w) of images `x` (B, 3, S, S)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents `z`, not clamped."""
        ...

    def condition(self, x: Tensor) -> ViewCondition:
        """What to keep of the known views `x` (N, 3, S, S)."""
        ...

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """The same n known views where what they say of the object agrees, and with what each of them shows.

        Args:
            condition: n known views.
            poses: (n, 3) of these relative to the first.
        """
        ...

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> Tensor | None:
        """How likely the object is at points of the world, in [0, 1], or None from a prior that does not say.

        Args:
            condition: n known views.
            poses: (n, 3) of these relative to the first, which is at azimuth 0 and the distance `RADIUS`.
            points: (..., 3), see cameras.py.
        """
        ...

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """What to keep for the views from given cameras, differentiable in their poses.

        Args:
            condition: B known views.
            pose: (B, 3) of the wanted views relative to these.
            together: n; every n rows that follow each other are known views of one object, for one wanted view,
                and a prior that can may let each of them know of the others.
        """
        ...

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """The predicted noise in `z_t` (B, c, h, w) at timestep `t`, same shape, differentiable in the pose.

        Args:
            z_t: noisy latents of the wanted views.
            t: timestep of all of them.
            posed: B known views and poses, one for each row of `z_t`.
        """
        ...


def check_views(x: Tensor, size: int) -> None:
    """Raises a UserError unless `x` is (B, 3, size, size)."""
    if x.ndim != 4 or tuple(x.shape[1:]) != (3, size, size):
        raise UserError(
            f"This prior takes images of the shape (B, 3, {size}, {size}), not {tuple(x.shape)}; resize them."
        )


def equal_variance(pose: Tensor) -> Tensor:
    """Ones (B, 1, 1, 1) for poses (B, 3), the `variance` of a prior that does not say."""
    return pose.new_ones(len(pose), 1, 1, 1)


class EmbeddedViewPrior:
    """The small view-conditioned prior for 64 x 64 pixels (see docs/three_d.md).

    Its `temperature` is 0: what it does not know it would paint in blotches.

    Args:
        autoencoder: images in [-1, 1] to standardised latents and back.
        network: predicts noise or v on those latents.
        parametrization: training schedule of the network and meaning of its output.
        guidance: scale of classifier-free guidance towards the known view, 1 for none.
        autocast: type that the networks compute in; None for the weights' own.
    """

    temperature = 0.0

    def __init__(
        self,
        autoencoder: EmbeddedAutoencoder,
        network: ViewNetwork,
        parametrization: Parametrization,
        guidance: float = 1.0,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        accelerate_vae(self.autoencoder)
        self.network = network.eval().requires_grad_(False).channels_last()
        self.guidance, self._autocast = guidance, autocast
        self._parametrization = parametrization
        self.alphas_cumprod = parametrization.alphas_cumprod
        size = network.config["latent_size"]
        self.image_size = size * autoencoder.downsampling
        self.latent_shape = (network.config["latent_channels"], size, size)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = EMBEDDED_3D_WEIGHTS,
        device: torch.device | str = "cpu",
        guidance: float = 1.0,
    ) -> EmbeddedViewPrior:
        """Loads a folder with `autoencoder/`, `network/`, `scheduler/` as tools/train_view_prior.py writes it.

        Raises:
            UserError: the folder or a file in it is missing, unreadable or of another shape.
        """
        path = Path(path)
        for part in ("autoencoder", "network", "scheduler"):
            if not (path / part).is_dir():
                raise UserError(
                    f"No view-conditioned prior at {path}: the folder '{part}' is missing; "
                    "give 'embedded-3d' or a folder written by tools/train_view_prior.py export."
                )
        autoencoder = load_network(EmbeddedAutoencoder, path / "autoencoder", device)
        network = load_network(ViewNetwork, path / "network", device)
        scheduler = load_schedule(path / "scheduler")
        half = torch.bfloat16 if computes_in_bfloat16(torch.device(device)) else None
        return cls(autoencoder, network, Parametrization.of(scheduler), guidance, half)

    def encode(self, x: Tensor) -> Tensor:
        """Standardised latents (B, c, h, w) of `x` (B, 3, S, S) in [-1, 1].

        Raises:
            UserError: the images have another size.
        """
        check_views(x, self.image_size)
        with self._precision(x):
            return self.autoencoder.encode(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents `z` (B, c, h, w), not clamped."""
        with self._precision(z):
            return self.autoencoder.decode(z.contiguous(memory_format=torch.channels_last)).to(z.dtype)

    def condition(self, x: Tensor) -> ViewCondition:
        """Volumes and polar angles of the known views `x` (N, 3, S, S) in [-1, 1]; errors as `encode`."""
        latent = self.encode(x)
        with self._precision(x):
            volume, polar = self.network.encode_view(latent, x)
        return ViewCondition(tuple(part.to(x.dtype) for part in volume), polar.to(x.dtype))

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """With the mean of what they say of the opacity, and adapted to all of them; see `ViewNetwork`."""
        cameras = _cameras(condition, poses)
        with self._precision(poses):
            agreed = self.network.adapt(self.network.agree(Volume(*condition.parts), cameras), cameras)
        return replace(condition, parts=tuple(agreed))

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> Tensor:
        """The mean of what the views say of the opacity, shaped as `points` (..., 3) without the last."""
        rows = points.reshape(-1, 1, 1, 3)
        cameras = _cameras(condition, poses)
        return self.network.opacity_at(Volume(*condition.parts), cameras, rows).view(points.shape[:-1])

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """Features of the wanted views, where guided after those without a known view, and first estimates.

        Known views together correct each other's first estimates and variances (`ViewNetwork.hear`).
        """
        assert condition.polar is not None
        volume, polar = Volume(*condition.parts), condition.polar
        with self._precision(pose):
            rendered = self.network.hear(self.network.render(volume, polar, pose), together)
            mean, log_variance = self.network.estimate(rendered)
            parts = [rendered]
            if self.guidance != 1:
                nothing = Volume(*(torch.zeros_like(part) for part in volume))
                parts = [self.network.render(nothing, polar, pose), rendered]
        variance = log_variance.exp()[:, None]
        return PosedCondition(tuple(parts), variance.to(pose.dtype), mean.to(pose.dtype))

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """The predicted noise (B, c, h, w), guided; see `ViewPrior.predict_noise`."""
        rendered, noisy = torch.cat(posed.parts), torch.cat([z_t] * len(posed.parts))
        with self._precision(z_t):
            output = self.network.denoise(noisy, t, rendered, self.alphas_cumprod[t].to(z_t))
        return self._parametrization.guided_noise(output, z_t, t, self.guidance)

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self._autocast, enabled=self._autocast is not None)


def _cameras(condition: ViewCondition, poses: Tensor) -> Tensor:
    """Cameras (n, 3) of the known views in these poses, the first at azimuth 0 and the distance `RADIUS`."""
    assert condition.polar is not None
    return poses + torch.stack([condition.polar[0], *poses.new_tensor([0.0, RADIUS])])
