"""The network of the embedded view-conditioned prior, which predicts a view from another one and a pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from latentdem_ext.reference import composite

from ...priors.network import Convolution, Network
from ...priors.unet import UNet
from ..geometry.cameras import POLAR_RANGE
from .frustum import FAINT, cells, hits, locate, plane_depths, resample, warp
from .layers import Block, Exchange, convolution_3d

SUMMARY = 32  # channels from which the polar angle of the known view is estimated
LOG_VARIANCES = (-6.0, 3.0)  # range of the log variances of the first estimate
CERTAIN = 1e-4  # opacities are clamped to this distance from 0 and 1 in logits
OPACITY_BIAS = 3.0  # an untrained network predicts a mostly empty volume


class FeatureVolume(NamedTuple):
    """Volumes that the network computes from N known views, in the frustums of their cameras.

    Attributes:
        features: (N, v, d, h, w) features, opacity first.
        opacity: (N, 1, 2 d, 2 h, 2 w) the same opacity at full resolution.
        picture: (N, 4, S, S) the views themselves less white, and the depth of the visible surface.
    """

    features: Tensor
    opacity: Tensor
    picture: Tensor

    @classmethod
    def of(cls, opacity: Tensor, features: Tensor, picture: Tensor) -> FeatureVolume:
        """Adds the coarse opacity before the features and the visible surface's depth after the picture."""
        # Along its own ray, a pixel hits the object at the depth that is missing.
        planes = plane_depths(opacity.shape[2], opacity)[:, None, None].expand_as(opacity)
        hit = composite(torch.cat([opacity, planes], dim=1))
        share, depth = F.interpolate(hit, picture.shape[-2:], mode="bilinear", align_corners=False).chunk(2, 1)
        shown = torch.cat([picture, depth / share.clamp_min(FAINT)], dim=1)
        return cls(torch.cat([F.avg_pool3d(opacity, 2), features], dim=1), opacity, shown)

    @property
    def logits(self) -> Tensor:
        """Logits of the opacity, in its shape."""
        return torch.logit(self.opacity.double(), eps=CERTAIN).to(self.opacity)

    def logits_at(self, cameras: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (k, n, d, h, w) of the opacity of n views of each of k objects at points of the world.

        They are 0 outside the frustum of a view. The shares (k, n, d, h, w) of the points' surroundings that
        are within follow, and where the points are in the frustums (k, n, d, h, w, 3), see `locate`.

        Args:
            cameras: (k, n, 3) cameras of the k n volumes.
            points: (k, d, h, w, 3) points.
        """
        logits, views = self.logits, cameras.shape[1]
        counted = torch.cat([logits, torch.ones_like(logits)], dim=1)
        positions = locate(points.repeat_interleave(views, 0), cameras.flatten(0, 1)).to(counted)
        samples = F.grid_sample(counted, positions, align_corners=False).unflatten(0, (-1, views))
        return samples[:, :, 0], samples[:, :, 1], positions.unflatten(0, (-1, views))


class ViewNetwork(Network):
    """Predicts the v of a noisy latent of a target view, given a known view and their relative pose.

    A first U-Net turns the known view into a volume of opacity and features in the frustum of its camera,
    including hidden parts, and estimates the camera's polar angle, which a relative pose does not determine.
    The volume is resampled in the frustum of the target camera; the network depends on the pose in no other
    way. The rendering of the resampled volume, and the pixels of the known view where target rays hit the
    object, become features of the target pixels. A second U-Net predicts v from these and the noisy latent. The
    first features are themselves an estimate of the target latent, and the next one the logarithm of its
    variance; other known views of the same object correct both (`exchange_views`). Without a known view the
    volume is zero. Feature volumes as the condition of a diffusion model: Chan et al. 2023, *GeNVS*.

    Args:
        latent_channels: channels of the latents.
        latent_size: height and width of the latents.
        downsampling: pixels of a picture along one side of a latent pixel.
        widths: channels of both U-Nets at full and at half resolution.
        layers: residual blocks of both U-Nets at each resolution.
        volume_features: channels of a volume besides opacity and the known latent itself, which is repeated at
            all depths; its sides are `latent_size`, those of its opacity twice that.
        flattened: channels of the layers that render a resampled volume.
        rendered: channels of the features of a target view.
        exchanged: channels in which known views are compared.
    """

    def __init__(
        self,
        latent_channels: int = 8,
        latent_size: int = 16,
        downsampling: int = 4,
        widths: Sequence[int] = (96, 160),
        layers: int = 1,
        volume_features: int = 16,
        flattened: int = 128,
        rendered: int = 96,
        exchanged: int = 64,
    ) -> None:
        super().__init__(
            latent_channels=latent_channels,
            latent_size=latent_size,
            downsampling=downsampling,
            widths=list(widths),
            layers=layers,
            volume_features=volume_features,
            flattened=flattened,
            rendered=rendered,
            exchanged=exchanged,
        )
        squared = downsampling**2
        self.volume_channels = volume_features + 8
        self.encoder = _unet(
            latent_channels + 3 * squared,
            self.volume_channels * latent_size + SUMMARY,
            widths,
            layers,
        )
        self.polar = nn.Sequential(nn.Linear(SUMMARY, SUMMARY), nn.SiLU(), nn.Linear(SUMMARY, 1))
        self.complete = nn.Sequential(*(Block(self.volume_channels, convolution_3d, 4) for _ in range(2)))
        seen = (1 + latent_channels + volume_features) * (latent_size + 1) + 5 * squared
        self.flatten = nn.Sequential(
            nn.Conv2d(seen, flattened, 1),
            *(Block(flattened, Convolution, 8) for _ in range(2)),
            nn.SiLU(),
            Convolution(flattened, rendered),
        )
        self.exchange = Exchange(rendered, exchanged, latent_channels + 1)
        self.unet = _unet(latent_channels + rendered, latent_channels, widths, layers)
        for parameter in self.unet.conv_out.parameters():
            nn.init.zeros_(parameter)

    def channels_last(self) -> ViewNetwork:
        """Converts the weights to the fastest memory format for 2D convolutions, and returns the network."""
        convert_conv2d_weight_memory_format(self, torch.channels_last)
        return self

    def encode_view(self, latent: Tensor, picture: Tensor) -> tuple[FeatureVolume, Tensor]:
        """Volumes and polar angles (N,) in radians of known views.

        Args:
            latent: (N, c, h, w) latents of the views.
            picture: (N, 3, S, S) the views, in [-1, 1].
        """
        features = self.encoder(*self._seen(latent, picture))
        summary = features[:, :SUMMARY].mean((2, 3))
        low, high = POLAR_RANGE
        polar = low + (high - low) * torch.sigmoid(_exact(self.polar(summary))).squeeze(1)
        size = self.config["latent_size"]
        completed = self.complete(features[:, SUMMARY:].unflatten(1, (self.volume_channels, size)))
        opacity = _finer(torch.sigmoid(_exact(completed[:, :8]) - OPACITY_BIAS))
        shown = latent[:, :, None].expand(-1, -1, size, -1, -1)
        return FeatureVolume.of(
            opacity, torch.cat([shown, completed[:, 8:]], dim=1), _exact(picture) - 1
        ), polar

    def overview(self, latent: Tensor, picture: Tensor) -> Tensor:
        """Coarsest features (N, widths[1], h / 2, w / 2) of the encoder of known views, see `encode_view`."""
        return self.encoder.coarsest(*self._seen(latent, picture))

    def _seen(self, latent: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder takes; it has no timesteps."""
        pixels = F.pixel_unshuffle(picture, self.config["downsampling"])
        return torch.cat([latent, pixels], dim=1), torch.zeros((), dtype=torch.long, device=latent.device)

    def latents_in(self, volume: FeatureVolume) -> Tensor:
        """Latents (N, c, h, w) of the known views, which their volumes contain at all depths."""
        return volume.features[:, 1 : 1 + self.config["latent_channels"], 0]

    def agree(self, volume: FeatureVolume, cameras: Tensor) -> FeatureVolume:
        """Volumes of n views of one object with a common opacity at each point: the mean of the logits.

        Args:
            volume: n volumes, or k n volumes of k objects.
            cameras: (n, 3) or (k, n, 3) polar angles and azimuths in radians and distances, in one coordinate
                system for each object.
        """
        depths, _, size = volume.opacity.shape[2:]
        objects = cameras.view(-1, *cameras.shape[-2:])
        around = [cells(camera, depths, size) for camera in objects.unbind(1)]
        agreed = torch.stack([self.opacity_at(volume, objects, points) for points in around], dim=1)
        return FeatureVolume.of(agreed.flatten(0, 1)[:, None], volume.features[:, 1:], volume.picture[:, :-1])

    def opacity_at(self, volume: FeatureVolume, cameras: Tensor, points: Tensor) -> Tensor:
        """Mean opacity (in logits) of n views at points of the world, (k, d, h, w); 0 outside all frustums.

        Args:
            volume: k n volumes, n of each of k objects.
            cameras: (k, n, 3) cameras, see `agree`.
            points: (k, d, h, w, 3) points.
        """
        logits, within, _ = volume.logits_at(cameras, points)
        total, count = logits.sum(1), within.sum(1)  # other frustums do not affect the mean
        return torch.sigmoid(total / count.clamp_min(1)) * (count > 0.5)

    def render(self, volume: FeatureVolume, known: Tensor, pose: Tensor) -> Tensor:
        """Features (B, rendered, h, w) of target views, differentiable in the pose.

        Args:
            volume: B volumes, as returned by `encode_view`; zeros for no known view.
            known: (B, 3) cameras of the known views, or (B, 5) with principal points; see cameras.py.
            pose: (B, 3) or (B, 5) poses of the target views relative to these.
        """
        resampled = resample(_exact(volume.features), known, known + pose)
        hit = hits(_exact(volume.opacity), known, known + pose)
        pixels = F.pixel_unshuffle(warp(_exact(volume.picture), hit), self.config["downsampling"])
        return self.flatten(torch.cat([resampled.flatten(1, 2), composite(resampled), pixels], dim=1))

    def exchange_views(self, rendered: Tensor, together: int) -> Tensor:
        """Features of `render` with first estimates and variances corrected by the other known views.

        Args:
            rendered: (B, rendered, h, w) features, with B a multiple of `together`.
            together: number n; every n consecutive rows are of one target view, from n known ones.
        """
        if together == 1:
            return rendered
        channels = self.config["latent_channels"] + 1  # estimate and log variance
        correction = self.exchange(rendered.unflatten(0, (-1, together))).flatten(0, 1)
        corrected = _exact(rendered[:, :channels]) + correction
        return torch.cat([corrected.to(rendered), rendered[:, channels:]], dim=1)

    def estimate(self, rendered: Tensor) -> tuple[Tensor, Tensor]:
        """First estimate (B, c, h, w) of the target latents, and the logarithm (B, h, w) of its variance."""
        channels = self.config["latent_channels"]
        return _exact(rendered[:, :channels]), _exact(rendered[:, channels]).clamp(*LOG_VARIANCES)

    def denoise(self, z_t: Tensor, t: Tensor | int, rendered: Tensor, abar: Tensor) -> Tensor:
        """Prediction of v (B, c, h, w), see `Parametrization`.

        It is the sum of the exact prediction for Gaussian target latents, with the first estimate as mean and
        with its variance, and the output of the second U-Net.

        Args:
            z_t: (B, c, h, w) noisy latents.
            t: one or (B,) timesteps.
            rendered: (B, rendered, h, w) features, as returned by `render`.
            abar: one or (B,) cumulative alphas of the timesteps.
        """
        x = torch.cat([z_t, rendered], dim=1).contiguous(memory_format=torch.channels_last)
        return gaussian_v(z_t, *self.estimate(rendered), abar) + self.unet(x, t)


def gaussian_v(z_t: Tensor, mean: Tensor, log_variance: Tensor, abar: Tensor) -> Tensor:
    """E[v | z_t] (B, c, h, w) for z0 ~ N(mean, variance), independent in all pixels and channels.

    From E[z0 | z_t] = mean + s sqrt(abar) r / (s abar + 1 - abar), with r = z_t - sqrt(abar) mean and s the
    variance, and v = (sqrt(abar) z_t - z0) / sqrt(1 - abar), rearranged to avoid a division by 1 - abar.
    Sources: the posterior of a Gaussian, Bishop 2006, Eq. 2.116; v, Salimans and Ho 2022, App. D.

    Args:
        z_t, mean: (B, c, h, w) standardised latents.
        log_variance: (B, h, w) natural logarithm of the variance of the latents.
        abar: one or (B,) cumulative alphas.
    """
    abar, variance = abar.view(-1, 1, 1, 1), log_variance.exp()[:, None]
    gain = abar.sqrt() * (1 - variance) / (variance * abar + 1 - abar)
    return (1 - abar).sqrt() * (gain * (z_t - abar.sqrt() * mean) - mean)


def _exact(x: Tensor) -> Tensor:
    """`x` in at least single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _finer(parts: Tensor) -> Tensor:
    """Volumes (N, 1, 2 d, 2 h, 2 w) from `parts` (N, 8, d, h, w), the eighths of every cell."""
    n, _, d, h, w = parts.shape
    return parts.view(n, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3).reshape(n, 1, 2 * d, 2 * h, 2 * w)


def _unet(inputs: int, outputs: int, widths: Sequence[int], layers: int) -> UNet:
    """A U-Net of two resolutions, with attention between pixels in the middle of the lower one."""
    return UNet(inputs, outputs, widths, layers, norm_num_groups=16, add_attention=True, attention_head_dim=32)
