"""Interface of latent diffusion priors to the solver."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class LatentPrior(Protocol):
    """A latent diffusion model: an autoencoder and a noise predictor on its latents.

    Any object with these members is a prior. Images are (B, 3, H, W) in [-1, 1] of any height and width;
    latents are (B, c, h, w) and include the padding that the networks need.

    Attributes:
        alphas_cumprod: (T,) cumulative alphas of the training schedule, on the CPU or the networks' device.

    A prior may have an attribute `capturable` that is true where its methods ask the device for no values and
    `predict_noise` also takes a timestep that is a tensor () there: the steps of a run are then captured as
    CUDA graphs.
    """

    alphas_cumprod: Tensor

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of this size."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Latents (B, c, h, w) of images `x` (B, 3, H, W) in [-1, 1]."""
        ...

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Images (B, 3, height, width) of latents `z`; the padding that `encode` added is cut off."""
        ...

    def predict_noise(self, z_t: Tensor, t: int) -> Tensor:
        """The predicted noise in `z_t` (B, c, h, w) at timestep `t`, same shape."""
        ...
