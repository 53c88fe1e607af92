"""The embedded view-conditioned prior, whose weights are the package latentdem_3d_weights."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdem_ext import accelerate_vae

from ...errors import UserError
from ...priors.autoencoder import EmbeddedAutoencoder
from ...priors.embedded import computes_in_bfloat16
from ...priors.loading import check_parts, load_network, load_schedule
from ...priors.network import Network
from ...priors.parametrization import Parametrization
from ..geometry.cameras import RADIUS
from .adaptation import adapt, bundle
from .base import PosedCondition, ViewCondition, check_views
from .framing import Framing
from .network import FeatureVolume, ViewNetwork
from .occupancy import Occupancy
from .pose_scorer import PoseScorer


def _weights_folder() -> Path:
    """The folder of the weights in a clone, or else in the package, if that is installed."""
    clone = Path(__file__).parents[3] / "weights_3d" / "latentdem_3d_weights"
    package = None if clone.is_dir() else find_spec(clone.name)
    return clone if package is None or package.origin is None else Path(package.origin).parent


EMBEDDED_3D_WEIGHTS = _weights_folder()
Part = TypeVar("Part", bound=Network)
INSTALL = "pip install latentdem-3d-weights (in a clone: pip install ./python/weights_3d)"


class EmbeddedViewPrior:
    """The small view-conditioned prior for 64 x 64 pixels (see docs/reference/three_d.md).

    Its `temperature` is 0: samples of uncertain regions would be blotchy.

    Args:
        autoencoder: images in [-1, 1] to standardised latents and back.
        network: predicts noise or v on those latents.
        parametrization: training schedule and output type of the network.
        guidance: scale of classifier-free guidance towards the known view, 1 for none.
        autocast: dtype of the computation; None for that of the weights.
        framing: network that estimates where crops show the middle of an object; None for no such estimate.
        scorer: network that scores poses; None for none.
        occupancy: network that estimates what is inside an object; None to take the opacity for it.

    Raises:
        UserError: `framing` or `occupancy` was trained for a network of another shape.
    """

    temperature = 0.0

    def __init__(
        self,
        autoencoder: EmbeddedAutoencoder,
        network: ViewNetwork,
        parametrization: Parametrization,
        guidance: float = 1.0,
        autocast: torch.dtype | None = None,
        framing: Framing | None = None,
        scorer: PoseScorer | None = None,
        occupancy: Occupancy | None = None,
    ) -> None:
        _check_parts_of(network, framing, occupancy)
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        accelerate_vae(self.autoencoder)
        self.network = network.eval().requires_grad_(False).channels_last()
        self._framing = None if framing is None else framing.eval().requires_grad_(False)
        self._scorer = None if scorer is None else scorer.eval().requires_grad_(False)
        self._occupancy = None if occupancy is None else occupancy.eval().requires_grad_(False)
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
        """Loads a folder with `autoencoder/`, `network/` and `scheduler/` by tools/train_view_prior.py.

        The folders `framing/` by tools/train_framing.py, `pose_scorer/` by tools/train_pose_scorer.py and
        `occupancy/` by tools/train_occupancy.py are optional.

        Raises:
            UserError: the folder or a file in it is missing, unreadable or has other shapes.
        """
        path = Path(path)
        if path == EMBEDDED_3D_WEIGHTS and not path.is_dir():
            raise UserError(
                f"The weights of 'embedded-3d' are a package of their own; install it with: {INSTALL}."
            )
        what_helps = "give 'embedded-3d' or a folder written by tools/train_view_prior.py export"
        check_parts(path, ("autoencoder", "network", "scheduler"), "view-conditioned prior", what_helps)
        autoencoder = load_network(EmbeddedAutoencoder, path / "autoencoder", device)
        network = load_network(ViewNetwork, path / "network", device)
        schedule = load_schedule(path / "scheduler")

        def optional(kind: type[Part], name: str) -> Part | None:
            return load_network(kind, path / name, device) if (path / name).is_dir() else None

        framing, scorer = optional(Framing, "framing"), optional(PoseScorer, "pose_scorer")
        occupancy = optional(Occupancy, "occupancy")
        half = torch.bfloat16 if computes_in_bfloat16(torch.device(device)) else None
        return cls(autoencoder, network, schedule, guidance, half, framing, scorer, occupancy)

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

    def framing(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """See `ViewPrior.framing`; for errors see `encode`."""
        check_views(x, self.image_size)
        if self._framing is None:
            return None
        return self._framing.cameras(self.overview(x), self.overview(x.flip(-1)))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    def overview(self, x: Tensor) -> Tensor:
        """Features (N, c, h, w), in the dtype of `x`, from which `Framing` starts; see `ViewNetwork.overview`.

        Args:
            x: (N, 3, S, S) views in [-1, 1]; for errors see `encode`.
        """
        latent = self.encode(x)
        with self._precision(x):
            return self.network.overview(latent, x).to(x.dtype)

    def condition(self, x: Tensor) -> ViewCondition:
        """Volumes and polar angles of the known views `x` (N, 3, S, S) in [-1, 1]; for errors see `encode`.

        The network that frames crops says how sure polar angles are, as it is trained to say of its own.
        """
        latent = self.encode(x)
        with self._precision(x):
            volume, polar = self.network.encode_view(latent, x)
        framing = self.framing(x)
        parts = tuple(part.to(x.dtype) for part in volume)
        return ViewCondition(parts, polar.to(x.dtype), deviation=None if framing is None else framing[1])

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """Volumes with the mean opacity of all views, adapted to these."""
        cameras = _cameras(condition, poses)
        with self._precision(poses):
            agreed = self.network.agree(FeatureVolume(*condition.parts), cameras)
            adapted = adapt(self.network, agreed, cameras)
        return replace(condition, parts=tuple(adapted))

    def bundle(self, condition: ViewCondition, cameras: Tensor, radius: bool) -> Tensor:
        """See `adaptation.bundle`."""
        offset = F.pad(cameras.new_tensor([0.0, 0.0, RADIUS]), (0, cameras.shape[-1] - 3))
        with self._precision(cameras):
            return bundle(self.network, FeatureVolume(*condition.parts), cameras + offset, radius) - offset

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> Tensor:
        """Probability that the object is at `points` (..., 3), in the shape (...).

        Without the network for it, it is the mean opacity of the views.
        """
        volume, cameras = FeatureVolume(*condition.parts), _cameras(condition, poses)
        if self._occupancy is not None:
            return self._occupancy.at(volume, cameras, points)
        rows = points.reshape(1, -1, 1, 1, 3)
        return self.network.opacity_at(volume, cameras[None], rows).view(points.shape[:-1])

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """Features of the target views, and first estimates; with guidance, after features without known views.

        Several known views correct each other's first estimates and variances (`ViewNetwork.exchange_views`).
        """
        assert condition.polar is not None
        volume, polar = FeatureVolume(*condition.parts), condition.polar
        known = torch.stack([polar, torch.zeros_like(polar), torch.full_like(polar, RADIUS)], dim=1)
        if condition.principal is not None:
            known = torch.cat([known, condition.principal], dim=1)
        with self._precision(pose):
            rendered = self.network.exchange_views(self.network.render(volume, known, pose), together)
            mean, log_variance = self.network.estimate(rendered)
            parts = [rendered]
            if self.guidance != 1:
                nothing = FeatureVolume(*(torch.zeros_like(part) for part in volume))
                parts = [self.network.render(nothing, known, pose), rendered]
        variance = log_variance.exp()[:, None]
        return PosedCondition(tuple(parts), variance.to(pose.dtype), mean.to(pose.dtype))

    def score(self, posed: PosedCondition, z: Tensor) -> Tensor | None:
        """See `ViewPrior.score`."""
        if self._scorer is None:
            return None
        with self._precision(z):
            return self._scorer(posed.parts[-1], z)

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """The predicted noise (B, c, h, w), guided; see `ViewPrior.predict_noise`."""
        rendered, noisy = torch.cat(posed.parts), torch.cat([z_t] * len(posed.parts))
        with self._precision(z_t):
            output = self.network.denoise(noisy, t, rendered, self.alphas_cumprod[t].to(z_t))
        return self._parametrization.guided_noise(output, z_t, t, self.guidance)

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self._autocast, enabled=self._autocast is not None)


def _check_parts_of(network: ViewNetwork, framing: Framing | None, occupancy: Occupancy | None) -> None:
    """A UserError unless the other networks take what this one gives."""
    own = network.config
    coarsest = {"channels": own["widths"][-1], "size": own["latent_size"] // 2}
    for other, needed in ((framing, coarsest), (occupancy, {"features": own["volume_features"]})):
        if other is not None and needed != {name: other.config[name] for name in needed}:
            name = type(other).__name__.lower()
            raise UserError(
                f"The network in '{name}' belongs to another prior; train it again for this one by "
                f"tools/train_{name}.py, or delete its folder."
            )


def _cameras(condition: ViewCondition, poses: Tensor) -> Tensor:
    """Cameras (n, 3) of known views in these poses, with the first at azimuth 0 and distance `RADIUS`."""
    assert condition.polar is not None
    return poses + torch.stack([condition.polar[0], *poses.new_tensor([0.0, RADIUS])])
