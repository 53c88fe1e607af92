"""The embedded autoencoder: a small KL autoencoder with downsampling 4 and 8 latent channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .network import Network


class ResidualBlock(nn.Module):
    """`x + conv(silu(conv(silu(x))))`, without normalisation so that tiles and whole images agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.get_parameter("bias"), 0.0)
        self.body = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


class EmbeddedAutoencoder(Network):
    """KL autoencoder of the embedded prior: images in [-1, 1] to latents of unit variance and back.

    Pixel-unshuffle by 2, residual blocks at half and at quarter resolution, and the mirrored layout
    for the decoder. The latents are standardised per channel with the statistics of the training set
    (`latents_mean`, `latents_std`), so the noise predictor sees roughly unit variance.

    Args:
        latent_channels: channels of the latent.
        widths: channels at half and at quarter resolution.
        encoder_blocks, decoder_blocks: residual blocks at (half, quarter) resolution.
        latents_mean, latents_std: per-channel statistics of the raw latents; zeros and ones before training.
    """

    downsampling = 4
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        latent_channels: int = 8,
        widths: Sequence[int] = (48, 112),
        encoder_blocks: Sequence[int] = (1, 2),
        decoder_blocks: Sequence[int] = (2, 3),
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__(
            latent_channels=latent_channels,
            widths=list(widths),
            encoder_blocks=list(encoder_blocks),
            decoder_blocks=list(decoder_blocks),
            latents_mean=latents_mean,
            latents_std=latents_std,
        )
        half, quarter = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, half, 3, padding=1),
            *_blocks(half, encoder_blocks[0]),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            *_blocks(quarter, encoder_blocks[1]),
            nn.SiLU(),
            nn.Conv2d(quarter, 2 * latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, quarter, 3, padding=1),
            *_blocks(quarter, decoder_blocks[1]),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(quarter, half, 3, padding=1),
            *_blocks(half, decoder_blocks[0]),
            nn.SiLU(),
            nn.Conv2d(half, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        # On the CPU also where the weights, which are loaded later, have no memory yet.
        mean = torch.tensor(latents_mean or [0.0] * latent_channels, device="cpu")
        std = torch.tensor(latents_std or [1.0] * latent_channels, device="cpu")
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the raw latent, each (B, latent_channels, H/4, W/4)."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean, logvar.clamp(-20.0, 10.0)

    def encode(self, x: Tensor) -> Tensor:
        """Standardised latent (B, latent_channels, H/4, W/4) of images `x` (B, 3, H, W) in [-1, 1].

        H and W must be multiples of 4.
        """
        return (self.moments(x)[0] - self.mean) / self.std

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, 4h, 4w) of standardised latents `z` (B, latent_channels, h, w); not clamped."""
        return self.decoder(z * self.std + self.mean)

    def forward(self, x: Tensor) -> Tensor:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))
