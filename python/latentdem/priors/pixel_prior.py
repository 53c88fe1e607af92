"""Pixel-space diffusion models as priors: their latents are the images themselves."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..errors import UserError
from .guided_diffusion import unet_of
from .loading import reason_of
from .padding import pad_to_multiple, padded_size
from .parametrization import timestep_on


class PixelPrior:
    """A noise predictor on images in [-1, 1], such as the FFHQ and ImageNet models of DPS.

    `encode` and `decode` are the identity, but for the padding to a multiple of 2 to the number of halvings of
    the network. With learned variances, the output of the network has twice the channels, and the second half
    is not used. The schedule is the linear one of DDPM (Ho et al. 2020) with 1000 timesteps, which all
    checkpoints of the family were trained with.

    Args:
        unet: network that predicts the noise in (B, C, H, W), and perhaps the variance after it.
        name: name of the prior in reports.

    Attributes:
        channels: C, 3 for images and 1 for blur kernels.
        alphas_cumprod: (1000,) float32 on the CPU.
        multiple: pixels, to multiples of which images are padded.
    """

    capturable = True

    def __init__(self, unet: UNet2DModel, name: str = "pixels") -> None:
        self.unet, self.name = unet.eval().requires_grad_(False), name
        if unet.device.type == "cuda":  # where half precision is fastest in this layout
            convert_conv2d_weight_memory_format(unet, torch.channels_last)
        self.channels = int(unet.config["in_channels"])
        self.multiple = 2 ** (len(unet.config["block_out_channels"]) - 1)
        schedule = DDPMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
        self.alphas_cumprod: Tensor = schedule.alphas_cumprod

    @classmethod
    def from_file(
        cls, path: str | Path, device: torch.device | str = "cpu", torch_dtype: torch.dtype = torch.float32
    ) -> PixelPrior:
        """Loads weights in the layout of the guided-diffusion code, without running code in the file.

        Args:
            path: file written by `torch.save` with the state dictionary, such as ffhq_10m.pt or
                256x256_diffusion_uncond.pt.
            device: where the network runs.
            torch_dtype: data type of its weights.

        Raises:
            UserError: there is no such file, it holds something else, or a network that cannot be a prior.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"There is no file {path}; check the path.")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} cannot be read as weights: {reason_of(error)}.") from error
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UserError(f"{path} holds more than the weights of a network; save its state_dict alone.")
        try:
            unet = unet_of(state)
        except UserError as error:
            raise UserError(f"{path} cannot be used as a prior: {error}.") from error
        return cls(unet.to(device, torch_dtype), str(path))

    @property
    def networks(self) -> list[nn.Module]:
        """Those that the methods call."""
        return [self.unet]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of an image of this size with its padding."""
        return self.channels, *padded_size(height, width, self.multiple)

    def encode(self, x: Tensor) -> Tensor:
        """`x` (B, C, H, W) in [-1, 1], its right and lower edge replicated as needed.

        Raises:
            UserError: the network is one of other images, such as blur kernels.
        """
        if x.shape[1] != self.channels:
            raise UserError(
                f"The prior {self.name} is one of pictures with {self.channels} channel(s), such as blur "
                f"kernels, and not with {x.shape[1]}; give a prior of photographs."
            )
        return pad_to_multiple(x, self.multiple)

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Images (B, C, height, width), not clamped."""
        return z[..., :height, :width]

    def predict_noise(self, z_t: Tensor, t: int | Tensor) -> Tensor:
        """Noise (B, C, h, w) in `z_t` (B, C, h, w) at timestep `t`, a number or a tensor ()."""
        output = self.unet(z_t.to(self.unet.dtype), timestep_on(z_t.device, t)).sample
        return output[:, : self.channels].to(z_t.dtype)
