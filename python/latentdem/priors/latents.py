"""Latents of images, and images of latents, by an autoencoder of diffusers."""

from __future__ import annotations

from contextlib import suppress

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from torch import Tensor

from latentdem_ext import accelerate_vae


class Latents:
    """Scaled latents of an autoencoder, whose weights are frozen and may be in half precision.

    Args:
        vae: autoencoder. A `VQModel` encodes without quantising and quantises when it decodes, as in diffusers.

    Attributes:
        downsampling: side of a latent pixel in image pixels.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny | VQModel) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self._scale, self._shift = _statistics(vae)
        self.downsampling = 2 ** (len(vae.config["block_out_channels"]) - 1)

    def accelerate(self) -> None:
        """Replaces layers with the accelerated ones of `latentdem_ext`, where there are any."""
        with suppress(ValueError):  # nothing to accelerate, or accelerated already
            accelerate_vae(self.vae)

    def raw(self, x: Tensor) -> Tensor:
        """Latents (B, c, h, w) of `x` (B, 3, H, W) in [-1, 1] without scale; the mean of a distribution."""
        encoded = self.vae.encode(x.to(self.vae.dtype))
        return (encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents).to(x.dtype)

    def scaled(self, raw: Tensor) -> Tensor:
        """`raw` latents in the scale that the noise predictor was trained on."""
        return (raw - self._shift.to(raw)) * self._scale.to(raw)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W) of scaled latents `z` (B, c, h, w), not clamped."""
        raw = z / self._scale.to(z) + self._shift.to(z)
        return self.vae.decode(raw.to(self.vae.dtype)).sample.to(z.dtype)


def _statistics(vae: AutoencoderKL | AutoencoderTiny | VQModel) -> tuple[Tensor, Tensor]:
    """Scale and shift of z = (raw - shift) scale, each of a shape that broadcasts to (B, c, h, w).

    The configurations of the first `VQModel`s do not state a factor, and none was used in their training.
    diffusers since 0.12 then takes that of Stable Diffusion, which spoils their images (its issue 6725).
    """
    config = vae.config
    unstated = "scaling_factor" in config.get("_use_default_values", ()) and "_name_or_path" in config
    factor = 1.0 if isinstance(vae, VQModel) and unstated else config["scaling_factor"]
    scale, shift = (torch.tensor(v, device=vae.device) for v in (factor, config.get("shift_factor") or 0.0))
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return scale, shift
    mean, std = (torch.tensor(v, device=vae.device).view(1, -1, 1, 1) for v in (mean, std))
    return scale / std, mean
