"""The network of the embedded view-conditioned prior: it looks at what one view shows from elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..cameras import POLAR_RANGE
from .frustum import FAINT, carry, cells, composite, hits, locate, plane_depths, warp
from .layers import Block, Exchange

SUMMARY = 32  # channels that the polar angle of the known view is read from
LOG_VARIANCES = (-6.0, 3.0)  # of the first estimate, between which they are told
CERTAIN = 1e-4  # an opacity nearer to 0 or 1 is as sure as this
FEW = 3.0  # an untrained network sees little of a volume filled


class FeatureVolume(NamedTuple):
    """What the network makes of N known views.

    Attributes:
        features: (N, v, d, h, w) in the frustums of their cameras, opacity first.
        opacity: (N, 1, 2 d, 2 h, 2 w) the same opacity at full resolution.
        picture: (N, 4, S, S) the views themselves less white, and how deep what they show is.
    """

    features: Tensor
    opacity: Tensor
    picture: Tensor

    @classmethod
    def of(cls, opacity: Tensor, features: Tensor, picture: Tensor) -> FeatureVolume:
        """With the coarser opacity before the features, and the depth of what is shown after the picture."""
        # Seen from its own camera, a pixel meets the object at itself, and at the depth that is missing.
        planes = plane_depths(opacity.shape[2], opacity)[:, None, None].expand_as(opacity)
        met = composite(torch.cat([opacity, planes], dim=1))
        share, depth = F.interpolate(met, picture.shape[-2:], mode="bilinear", align_corners=False).chunk(2, 1)
        shown = torch.cat([picture, depth / share.clamp_min(FAINT)], dim=1)
        return cls(torch.cat([F.avg_pool3d(opacity, 2), features], dim=1), opacity, shown)

    @property
    def logits(self) -> Tensor:
        """Of the opacity."""
        return torch.logit(self.opacity.double(), eps=CERTAIN).to(self.opacity)


class ViewNetwork(ModelMixin, ConfigMixin):
    """Predicts what turns the latent of one view into that of another, given their relative pose.

    A first U-Net turns the known view into a volume of opacity and features in the frustum of its camera,
    also of what is hidden there, and estimates the camera's polar angle, which a relative pose leaves open.
    The volume is resampled in the frustum of the wanted camera, which is all that the network is told of the
    pose; what is seen of it from there, and the pixels of the known view where the wanted ones meet the
    object, become features of the wanted pixels. A second U-Net predicts from these and the noisy latent. The
    first of the features are themselves an estimate of the wanted latent, the one after them the logarithm of
    its variance; what other known views make of the same wanted one corrects both (`hear`). Without a known
    view the volume is zero. Feature volumes as the condition of a diffusion model: Chan et al. 2023, *GeNVS*.

    Args:
        latent_channels: channels of the latents.
        latent_size: height and width of the latents.
        downsampling: pixels of a picture along the side of one of its latent.
        widths: channels of both U-Nets at full and at half resolution.
        layers: residual blocks of both at each resolution.
        volume_features: channels of a volume beside opacity and the known latent itself at all depths; its
            sides are `latent_size`, those of its opacity twice that.
        flattened: channels in which it is worked out what is seen of a volume.
        rendered: channels of the features of a wanted view.
        exchanged: channels in which known views are compared.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        latent_size: int = 16,
        downsampling: int = 4,
        widths: tuple[int, int] = (96, 160),
        layers: int = 1,
        volume_features: int = 16,
        flattened: int = 128,
        rendered: int = 96,
        exchanged: int = 64,
    ) -> None:
        super().__init__()
        squared = downsampling**2
        self.found = volume_features + 8
        self.encoder = _unet(
            latent_channels + 3 * squared, self.found * latent_size + SUMMARY, latent_size, widths, layers
        )
        self.polar = nn.Sequential(nn.Linear(SUMMARY, SUMMARY), nn.SiLU(), nn.Linear(SUMMARY, 1))
        self.complete = nn.Sequential(*(Block(self.found, nn.Conv3d, 4) for _ in range(2)))
        seen = (1 + latent_channels + volume_features) * (latent_size + 1) + 5 * squared
        self.flatten = nn.Sequential(
            nn.Conv2d(seen, flattened, 1),
            *(Block(flattened, nn.Conv2d, 8) for _ in range(2)),
            nn.SiLU(),
            nn.Conv2d(flattened, rendered, 3, padding=1),
        )
        self.exchange = Exchange(rendered, exchanged, latent_channels + 1)
        self.unet = _unet(latent_channels + rendered, latent_channels, latent_size, widths, layers)
        for parameter in self.unet.conv_out.parameters():
            nn.init.zeros_(parameter)

    def channels_last(self) -> ViewNetwork:
        """Itself, in the memory format that its convolutions over pixels are fastest in."""
        convert_conv2d_weight_memory_format(self, torch.channels_last)
        return self

    def encode_view(self, latent: Tensor, picture: Tensor) -> tuple[FeatureVolume, Tensor]:
        """Volumes and polar angles (N,), radians, of known views.

        Args:
            latent: (N, c, h, w).
            picture: (N, 3, S, S) what it is the latent of, in [-1, 1].
        """
        pixels = F.pixel_unshuffle(picture, self.config["downsampling"])
        never = torch.zeros((), dtype=torch.long, device=latent.device)
        features = self.encoder(torch.cat([latent, pixels], dim=1), never).sample
        summary = features[:, :SUMMARY].mean((2, 3))
        low, high = POLAR_RANGE
        polar = low + (high - low) * torch.sigmoid(_exact(self.polar(summary))).squeeze(1)
        size = self.config["latent_size"]
        found = self.complete(features[:, SUMMARY:].unflatten(1, (self.found, size)))
        opacity = _finer(torch.sigmoid(_exact(found[:, :8]) - FEW))
        shown = latent[:, :, None].expand(-1, -1, size, -1, -1)
        return FeatureVolume.of(opacity, torch.cat([shown, found[:, 8:]], dim=1), _exact(picture) - 1), polar

    def latents_in(self, volume: FeatureVolume) -> Tensor:
        """The latents (N, c, h, w) of the known views, which their volumes have at all depths."""
        return volume.features[:, 1 : 1 + self.config["latent_channels"], 0]

    def agree(self, volume: FeatureVolume, cameras: Tensor) -> FeatureVolume:
        """Volumes of n views of one object, all with the mean opacity (in logits) of those around each point.

        Args:
            volume: n of them, or k n of k objects.
            cameras: (n, 3) or (k, n, 3) theirs, polar angle and azimuth in radians and distance, in one system
                for each object.
        """
        depths, _, size = volume.opacity.shape[2:]
        objects = cameras.view(-1, *cameras.shape[-2:])
        around = [cells(camera, depths, size) for camera in objects.unbind(1)]
        agreed = torch.stack([self.opacity_at(volume, objects, points) for points in around], dim=1)
        return FeatureVolume.of(agreed.flatten(0, 1)[:, None], volume.features[:, 1:], volume.picture[:, :-1])

    def opacity_at(self, volume: FeatureVolume, cameras: Tensor, points: Tensor) -> Tensor:
        """The mean opacity (in logits) of n views at points of the world; 0 where none of them sees.

        Args:
            volume: k n of them, n of each of k objects.
            cameras: (k, n, 3) theirs, as for `agree`.
            points: (k, d, h, w, 3).

        Returns:
            (k, d, h, w).
        """
        logits, views = volume.logits, cameras.shape[1]
        # Where a camera does not see, it has no say.
        told = torch.cat([logits, torch.ones_like(logits)], dim=1)
        where = locate(points.repeat_interleave(views, 0), cameras.flatten(0, 1)).to(told)
        there = F.grid_sample(told, where, align_corners=False).unflatten(0, (-1, views))
        total, seen = there.sum(1).unbind(1)
        return torch.sigmoid(total / seen.clamp_min(1)) * (seen > 0.5)

    def render(self, volume: FeatureVolume, known: Tensor, pose: Tensor) -> Tensor:
        """Features (B, rendered, h, w) of wanted views, differentiable in the pose.

        Args:
            volume: B of them, as `encode_view` gives them; zeros for no known view.
            known: (B, 3) cameras of the known views, or (B, 5) with principal points; see cameras.py.
            pose: (B, 3) or (B, 5) of the wanted views relative to these.
        """
        there = carry(_exact(volume.features), known, known + pose)
        met = hits(_exact(volume.opacity), known, known + pose)
        pixels = F.pixel_unshuffle(warp(_exact(volume.picture), met), self.config["downsampling"])
        return self.flatten(torch.cat([there.flatten(1, 2), composite(there), pixels], dim=1))

    def hear(self, rendered: Tensor, together: int) -> Tensor:
        """Features as `render` gives them, first estimates and variances corrected by other known views.

        Args:
            rendered: (B, rendered, h, w), B a multiple of `together`.
            together: n; every n rows that follow each other are of one wanted view, out of n known ones.
        """
        if together == 1:
            return rendered
        told = self.config["latent_channels"] + 1
        correction = self.exchange(rendered.unflatten(0, (-1, together))).flatten(0, 1)
        corrected = _exact(rendered[:, :told]) + correction
        return torch.cat([corrected.to(rendered), rendered[:, told:]], dim=1)

    def estimate(self, rendered: Tensor) -> tuple[Tensor, Tensor]:
        """Wanted latents (B, c, h, w) as first estimated, and the logarithm (B, h, w) of the variance."""
        channels = self.config["latent_channels"]
        return _exact(rendered[:, :channels]), _exact(rendered[:, channels]).clamp(*LOG_VARIANCES)

    def denoise(self, z_t: Tensor, t: Tensor | int, rendered: Tensor, abar: Tensor) -> Tensor:
        """The prediction of v (B, c, h, w), see `Parametrization`.

        That which is best if the wanted latents are Gaussian, with the first estimate as their mean and its
        variance, and what the second U-Net adds.

        Args:
            z_t: (B, c, h, w) noisy latents.
            t: one or (B,) timesteps.
            rendered: (B, rendered, h, w) as `render` gives them.
            abar: one or (B,) cumulative alphas of the timesteps.
        """
        x = torch.cat([z_t, rendered], dim=1).contiguous(memory_format=torch.channels_last)
        return gaussian_v(z_t, *self.estimate(rendered), abar) + self.unet(x, t).sample


def gaussian_v(z_t: Tensor, mean: Tensor, log_variance: Tensor, abar: Tensor) -> Tensor:
    """E[v | z_t] (B, c, h, w) for z0 ~ N(mean, variance), independent in all pixels and channels.

    From E[z0 | z_t] = mean + s sqrt(abar) r / (s abar + 1 - abar), with r = z_t - sqrt(abar) mean and s the
    variance, and v = (sqrt(abar) z_t - z0) / sqrt(1 - abar), written so that nothing is divided by 1 - abar.
    Sources: the posterior of a Gaussian, Bishop 2006, Eq. 2.116; v, Salimans and Ho 2022, App. D.

    Args:
        z_t, mean: (B, c, h, w), in units of the standardised latents.
        log_variance: (B, h, w) natural logarithm, in their units squared.
        abar: one or (B,) cumulative alphas.
    """
    abar, variance = abar.view(-1, 1, 1, 1), log_variance.exp()[:, None]
    gain = abar.sqrt() * (1 - variance) / (variance * abar + 1 - abar)
    return (1 - abar).sqrt() * (gain * (z_t - abar.sqrt() * mean) - mean)


def _exact(x: Tensor) -> Tensor:
    """At least single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _finer(parts: Tensor) -> Tensor:
    """Volumes (N, 1, 2 d, 2 h, 2 w) of which (N, 8, d, h, w) has the eighths of every cell."""
    n, _, d, h, w = parts.shape
    return parts.view(n, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3).reshape(n, 1, 2 * d, 2 * h, 2 * w)


def _unet(inputs: int, outputs: int, size: int, widths: tuple[int, int], layers: int) -> UNet2DModel:
    """Two resolutions, with attention between the pixels of the lower one in its middle."""
    model = UNet2DModel(
        sample_size=size,
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=tuple(widths),
        layers_per_block=layers,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=16,
        attention_head_dim=32,
    )
    for module in model.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())  # faster than fused attention with so few tokens on a CPU
    return model
