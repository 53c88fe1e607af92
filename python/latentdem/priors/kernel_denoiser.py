"""The plug-and-play denoiser of blur kernels in the M-step: a small DnCNN and its shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from .loading import load_network
from .network import Convolution, Network

SHIPPED = Path(__file__).parent.parent / "weights" / "embedded" / "kernel_denoiser"


class KernelDenoiser(Network):
    """DnCNN (Zhang et al., 2017) for blur kernels: 3 x 3 convolutions and ReLU, with a noise-level map.

    Five layers of 32 channels see a kernel scaled to peak 1 and a constant map of the noise level, as in
    LatentDEM (appendix B). They predict the noise in units of its level, so that a low level changes a
    kernel little; over the whole range of levels this trained better than predicting the noise or the kernel.
    Kernels may have any size.

    Args:
        layers: number of convolutions, at least 2.
        channels: width of the hidden layers.
    """

    def __init__(self, layers: int = 5, channels: int = 32) -> None:
        super().__init__(layers=layers, channels=channels)
        hidden: list[nn.Module] = []
        for _ in range(layers - 2):
            hidden += [Convolution(channels, channels), nn.ReLU()]
        self.net = nn.Sequential(
            Convolution(2, channels),
            nn.ReLU(),
            *hidden,
            Convolution(channels, 1),
        )

    def forward(self, kernel: Tensor, noise_level: Tensor | float) -> Tensor:
        """Denoised kernels, not clipped and not normalised.

        Args:
            kernel: (B, 1, K, K) noisy kernels scaled to peak 1.
            noise_level: standard deviation of the noise in units of the peak, (B,) or one for all.

        Returns:
            (B, 1, K, K)
        """
        level = torch.as_tensor(noise_level, dtype=kernel.dtype, device=kernel.device)
        level_map = level.reshape(-1, 1, 1, 1).expand_as(kernel)
        inputs = torch.cat([kernel, level_map], dim=1).contiguous(memory_format=torch.channels_last)
        return (kernel - level_map * self.net(inputs)).contiguous()

    def layers(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases of the convolutions."""
        convolutions = [module for module in self.net if isinstance(module, Convolution)]
        biases = [layer.bias for layer in convolutions if layer.bias is not None]
        return [layer.weight for layer in convolutions], biases

    def denoise(self, kernel: Tensor, noise_level: Tensor | float) -> Tensor:
        """Denoised kernels of any scale: each is divided by its peak before and multiplied by it after.

        Args:
            kernel: (B, 1, K, K) noisy kernels. One without a positive value comes back as zeros.
            noise_level: standard deviation of the noise in units of each kernel's peak, (B,) or one for all.

        Returns:
            (B, 1, K, K), not clipped and not normalised.
        """
        return at_peak_one(kernel, lambda scaled: self(scaled, noise_level))


def network_of(denoise: Callable[[Tensor, Tensor], Tensor] | None) -> KernelDenoiser | None:
    """The network that `denoise` is the method `KernelDenoiser.denoise` of; None for any other function."""
    owner = getattr(denoise, "__self__", None)
    return owner if type(owner) is KernelDenoiser and denoise == owner.denoise else None


def at_peak_one(kernel: Tensor, denoise: Callable[[Tensor], Tensor]) -> Tensor:
    """`denoise` of kernels (B, 1, K, K) scaled to peak 1, and scaled back.

    One without a positive value comes back as zeros.
    """
    peak = kernel.amax(dim=(1, 2, 3), keepdim=True).clamp_min(0)
    return peak * denoise(kernel / torch.where(peak > 0, peak, torch.ones_like(peak)))


def load_kernel_denoiser(path: str | Path | None = None, device: torch.device | str = "cpu") -> KernelDenoiser:
    """Loads the trained denoiser, its parameters in float32 and without gradient, in evaluation mode.

    It computes in float32: kernels are small, so that bfloat16 saves nothing that a run shows, while its
    rounding, 1e-4 of a kernel in each step, grows in EM, and a batch would not give what single runs do.

    Args:
        path: folder written by `KernelDenoiser.save_pretrained`; None for the shipped weights.
        device: where it will run.

    Raises:
        UserError: the folder or one of its files is missing, damaged or belongs to another model.
    """
    return prepare_for_inference(load_network(KernelDenoiser, SHIPPED if path is None else Path(path)), device)


def prepare_for_inference(model: KernelDenoiser, device: torch.device | str) -> KernelDenoiser:
    """Sets a network up as `load_kernel_denoiser` does: float32, no gradient, evaluation mode, on `device`."""
    if model.dtype != torch.float32:
        model = model.float()
    convert_conv2d_weight_memory_format(model, torch.channels_last)
    return model.eval().requires_grad_(False).to(device)
