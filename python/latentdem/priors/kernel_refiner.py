"""A network that corrects blur kernels which were estimated from a photograph, and its shipped weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import latentdem_ext as ext

from .loading import load_network
from .network import Convolution, Network

SHIPPED = Path(__file__).parent.parent / "weights" / "embedded" / "kernel_refiner"
_DARK, _DECADES = 1e-4, 2.0  # least noise that is told apart, and decades of noise that the input is scaled by


class Residual(nn.Module):
    """x + two convolutions of x, each after a ReLU; with other channels a 1 x 1 convolution of x."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Convolution(channels, outputs), Convolution(outputs, outputs)
        self.skip = nn.Identity() if channels == outputs else nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.second(F.relu(self.first(F.relu(x))))


class KernelRefiner(Network):
    """A residual U-Net of three levels for estimated kernels; kernels may have any size.

    It was trained on kernels that this package estimates from photographs, beside the true ones. What it
    minimises is not the distance between the two but what the error of the kernel costs the picture that a
    Wiener filter restores with it (tools/train_kernel_refiner.py): errors at frequencies that the blur removes
    cost little, and errors where little of them is left cost much.

    Args:
        channels: of the upper level; the lower ones have two and three times as many.
    """

    def __init__(self, channels: int = 24) -> None:
        super().__init__(channels=channels)
        one, two, three = channels, 2 * channels, 3 * channels
        self.first, self.last = Convolution(2, one), Convolution(one, 1)
        self.down = nn.ModuleList([Residual(one, one), Residual(one, two), Residual(two, three)])
        self.middle = Residual(three, three)
        self.up = nn.ModuleList([Residual(three + two, two), Residual(two + one, one)])

    def forward(self, kernel: Tensor, sigma: Tensor) -> Tensor:
        """Corrected kernels, not clipped and not normalised.

        Args:
            kernel: (B, 1, K, K), scaled to peak 1.
            sigma: (B,) standard deviation of the noise of the photographs, in units of [-1, 1].

        Returns:
            (B, 1, K, K)
        """
        size = kernel.shape[-1]
        padded = F.pad(kernel, (0, -size % 4, 0, -size % 4))
        level = 1 + torch.log10((sigma / 2).clamp_min(_DARK)) / _DECADES
        x = self.first(torch.cat([padded, level.view(-1, 1, 1, 1).expand_as(padded)], 1))
        skipped = []
        for n, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if n else x)
            skipped.append(x)
        x = self.middle(x)
        for block, other in zip(self.up, skipped[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="bilinear"), other], 1))
        return kernel + self.last(F.relu(x))[..., :size, :size]

    @torch.no_grad()
    def refined(self, kernels: Tensor, sigma: Tensor) -> Tensor:
        """Means of kernels and their corrections.

        The mean loses less where the correction is wrong, on kernels unlike those of the training, and gains
        nearly as much (docs/research/deblurring.md, "A network that corrects kernels").

        Args:
            kernels: (B, 1, K, K), non-negative, sum 1.
            sigma: (B,) standard deviation of the noise of the photographs, in units of [-1, 1].

        Returns:
            (B, 1, K, K), non-negative, sum 1.
        """
        peak = kernels.amax((-2, -1), keepdim=True)
        return (kernels + ext.project_kernel(self(kernels / peak, sigma))) / 2


def load_kernel_refiner(path: str | Path | None = None, device: torch.device | str = "cpu") -> KernelRefiner:
    """Loads the trained network, its parameters in float32 and without gradient, in evaluation mode.

    Args:
        path: folder written by `KernelRefiner.save_pretrained`; None for the shipped weights.
        device: where it will run.

    Raises:
        UserError: the folder or one of its files is missing, damaged or belongs to another model.
    """
    return load_network(KernelRefiner, SHIPPED if path is None else Path(path), device)


@cache
def shipped_refiner(device: torch.device) -> KernelRefiner:
    """The shipped network on `device`, loaded once."""
    return load_kernel_refiner(device=device)
