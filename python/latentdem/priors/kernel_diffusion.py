"""Diffusion priors of blur kernels: a small network with its weights, and the kernel denoiser in its place.

Such a prior has the interface of `LatentPrior`, with pictures of one channel: a kernel scaled to [-1, 1].
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

import latentdem_ext as ext

from .kernel_denoiser import KernelDenoiser, at_peak_one
from .loading import check_parts, load_network, load_schedule
from .padding import padded_size
from .parametrization import TIMESTEPS, Parametrization
from .unet import UNet

SHIPPED = Path(__file__).parent.parent / "weights" / "embedded" / "kernel_diffusion"
SCHEDULE = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": TIMESTEPS,
    "prediction_type": "v_prediction",
}
"""The schedule of Ho et al. (2020), which BlindDPS trained its network of kernels with.

It ends with so much noise that a small error of predicted noise is a large one of the picture, so the network
predicts v.
"""


def kernel_picture(kernel: Tensor) -> Tensor:
    """Kernels (B, 1, K, K) with a positive value as pictures in [-1, 1], 2 k / max k - 1: black is zero."""
    return 2 * kernel / kernel.amax((1, 2, 3), keepdim=True) - 1


def kernel_of(picture: Tensor) -> Tensor:
    """The kernels (B, 1, K, K), non-negative with sum 1, of pictures of any range; differentiable.

    (u + 1) / 2 divided by its sum, as in BlindDPS, but without its negative values.
    """
    return ext.project_kernel((picture + 1) / 2)


class KernelDiffusion:
    """An unconditional diffusion model of the pictures of kernels of any size (see `kernel_picture`).

    It is a denoiser of kernels too, and `Blur(kernel_size, KernelDiffusion.from_pretrained())` has it in its
    M-steps.

    Args:
        unet: network on pictures (B, 1, h, w) with sides that are multiples of `multiple`.
        parametrization: the schedule that it was trained with, and what it predicts.

    Attributes:
        alphas_cumprod: (1000,) cumulative alphas of the schedule, on the CPU.
        multiple: 2 to the number of halvings of the network.
    """

    def __init__(self, unet: UNet, parametrization: Parametrization) -> None:
        self.unet, self.parametrization = unet.eval().requires_grad_(False), parametrization
        convert_conv2d_weight_memory_format(self.unet, torch.channels_last)
        self.alphas_cumprod = parametrization.alphas_cumprod
        self.multiple = 2 ** (len(unet.config["block_out_channels"]) - 1)
        ratio = (1 / self.alphas_cumprod - 1).sqrt()
        # Noise in units of the signal, where one timestep ceases to be the nearest one and the next begins.
        self._between = (ratio[:-1] * ratio[1:]).sqrt()

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, device: torch.device | str = "cpu"
    ) -> KernelDiffusion:
        """Loads a folder with `unet/` and `scheduler/`, as written by tools/train_kernel_diffusion.py.

        Args:
            path: the folder; None for the shipped weights.
            device: where the network runs, in float32.

        Raises:
            UserError: the folder or a file in it is missing, unreadable or of another shape.
        """
        path = SHIPPED if path is None else Path(path)
        remedy = "give a folder written by tools/train_kernel_diffusion.py export"
        check_parts(path, ("unet", "scheduler"), "diffusion prior of kernels", remedy)
        return cls(load_network(UNet, path / "unet", device), load_schedule(path / "scheduler"))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(1, h, w) of a picture of this size after padding."""
        return 1, *padded_size(height, width, self.multiple)

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, 1, height, width), padded with black on the right and below as needed."""
        rows, columns = padded_size(x.shape[-2], x.shape[-1], self.multiple)
        return F.pad(x, (0, columns - x.shape[-1], 0, rows - x.shape[-2]), value=-1.0)

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Pictures (B, 1, height, width) without the padding, not clamped."""
        return z[..., :height, :width]

    def predict_noise(self, z_t: Tensor, t: int | Tensor) -> Tensor:
        """Noise (B, 1, h, w) in `z_t` (B, 1, h, w) at timestep `t`, one or (B,)."""
        output = self.unet(z_t.contiguous(memory_format=torch.channels_last), t)
        return self.parametrization.noise(output, z_t, t)

    def denoise(self, kernel: Tensor, noise_level: Tensor | float) -> Tensor:
        """Posterior means of kernels of any scale under white Gaussian noise, in place of `KernelDenoiser`.

        The picture of a noisy kernel, times sqrt(abar_t), is a sample of the diffusion at the timestep t whose
        noise is as strong; the mean follows from the noise predicted in it (Tweedie's formula). Of the 1000
        timesteps the nearest one is taken, and the first one at levels below its 0.005.

        Args:
            kernel: (B, 1, K, K) noisy kernels. One without a positive value comes back as zeros.
            noise_level: standard deviation of the noise in units of each kernel's peak, (B,) or one for all.

        Returns:
            (B, 1, K, K), not clipped and not normalised.
        """
        # A kernel of peak 1 has half the range of its picture.
        level = 2 * torch.as_tensor(noise_level, dtype=kernel.dtype, device=kernel.device).expand(len(kernel))
        t = torch.bucketize(level, self._between.to(level))
        signal = self.alphas_cumprod.to(level)[t].sqrt().view(-1, 1, 1, 1)

        def mean(scaled: Tensor) -> Tensor:
            picture = self.encode(2 * scaled - 1)
            clean = picture - level.view(-1, 1, 1, 1) * self.predict_noise(signal * picture, t)
            return (self.decode(clean, *kernel.shape[-2:]) + 1) / 2

        return at_peak_one(kernel, mean)


class DenoiserPrior:
    """The kernel denoiser D as an approximate diffusion prior of kernels.

    By Tweedie's formula the score of kernels with noise of standard deviation s is (D(k, s) - k) / s^2, and
    the noise in them is -s times the score, (k - D(k, s)) / s. This is an approximation: D was trained with
    noise of up to 0.15 of the peak, while the diffusion begins with noise that hides the kernel.

    Args:
        denoiser: the network of the M-step.

    Attributes:
        alphas_cumprod: (1000,) those of DDPM, as of `KernelDiffusion`.
    """

    def __init__(self, denoiser: KernelDenoiser) -> None:
        self.denoiser = denoiser
        self.alphas_cumprod = Parametrization.from_config(SCHEDULE).alphas_cumprod

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(1, height, width)."""
        return 1, height, width

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, 1, height, width) as they are."""
        return x

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Pictures (B, 1, height, width) as they are."""
        return z

    def predict_noise(self, z_t: Tensor, t: int) -> Tensor:
        """Noise (B, 1, K, K) in `z_t` (B, 1, K, K) at timestep `t`, by Tweedie's formula."""
        abar = float(self.alphas_cumprod[t])
        # z_t / sqrt(abar) is the picture with noise, and a kernel of peak 1 has half the range of its picture.
        level = 0.5 * ((1 - abar) / abar) ** 0.5
        noisy = (z_t / abar**0.5 + 1) / 2
        peak = noisy.detach().amax((1, 2, 3)).clamp_min(level)
        return (noisy - self.denoiser.denoise(noisy, level / peak)) / level
