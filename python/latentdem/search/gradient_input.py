"""What the gradient-based start sees of a photograph: a grey window with much gradient energy, and its mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from latentdem_ext.vae import Window

from ..operators.masked import spread
from .gradient_scale import TINY, Scale, box_mean, resize, squared_gradient

WINDOW_SIZE = 448  # pixels a side of the window in which the kernel of a larger photograph is estimated
_KERNELS_PER_SIDE = 8  # the window is at least this many kernels wide; long kernels need more edges


@dataclass(frozen=True)
class GradientInput:
    """Photographs as the gradient-based start uses them, each repeated for its hypotheses.

    At coarse scales all of a photograph is used, and at full size a window of it: the more edges the better,
    and most of the time is spent where there are most pixels.

    Attributes:
        grey: (B, 1, H, W) in [0, 1], filled where the mask is 0.
        mask: (B, 1, H, W), 1 for the pixels whose gradients count.
        kernel_size: odd, so that the kernel has a central pixel at every scale.
        circular: whether the blur wraps around.
        repeats: hypotheses of each photograph.
        window: pixels a side of the window that is used of a larger photograph, unless that is less than eight
            kernels.
    """

    grey: Tensor
    mask: Tensor
    kernel_size: int
    circular: bool
    repeats: int
    window: int = WINDOW_SIZE

    @classmethod
    def of(
        cls, y: Tensor, kernel_size: int, mask: Tensor | None, circular: bool, repeats: int
    ) -> GradientInput:
        """Prepares photographs (B, C, H, W) in [-1, 1] for `repeats` hypotheses each; `kernel_size` is odd."""
        grey = (y.float().mean(1, keepdim=True) + 1) / 2
        if mask is None:
            return cls(grey, torch.ones_like(grey), kernel_size, circular, repeats)
        valid = mask.to(grey).expand_as(grey)
        grey = _filled(grey, valid)
        margin = kernel_size // 4  # an invalid pixel spoils the gradients around it
        valid = 1 - spread(1 - valid, margin)
        return cls(grey, valid, kernel_size, circular, repeats)

    def scale(self, width: int, frames: list[float]) -> Scale:
        """The window that is used where the kernel is `width` pixels wide, N = B * repeats entries.

        Args:
            width: of the kernel, odd; `kernel_size` at full size.
            frames: as for `Scale`.
        """
        y, mask = self.grey, self.mask
        if width != self.kernel_size:
            shape = [round(n * width / self.kernel_size) for n in y.shape[-2:]]
            y, mask = resize(y, shape), (resize(mask, shape) > 0.99).to(y)
        rows, columns = edge_window(y, self.window, width, mask)
        window = y[..., rows, columns]
        return Scale(window, mask[..., rows, columns], width, frames, self.circular and window.shape == y.shape)


def edge_window(y: Tensor, size: int, kernel_size: int, mask: Tensor | None = None) -> Window:
    """The window with the most gradient energy, for all photographs of a batch together.

    The energy is clipped at four times its mean, so that a single hard edge does not outweigh texture
    everywhere. Its scale does not matter.

    Args:
        y: (B, C, H, W); the mean of the channels is used.
        size: side of the window in pixels; it becomes eight kernel sizes where that is more, and a smaller
            image is returned whole along that axis.
        kernel_size: K.
        mask: (B or 1, 1, H, W), 1 for the pixels that count; None for all.

    Returns:
        Slices of the rows and of the columns.
    """
    height, width = (min(n, max(size, _KERNELS_PER_SIDE * kernel_size)) for n in y.shape[-2:])
    energy = squared_gradient(y.mean(1, keepdim=True)).sum((0, 1))
    if mask is not None:
        energy = energy * mask.to(energy).amin((0, 1))
    energy[-1], energy[:, -1] = 0, 0  # differences between opposite edges
    energy = energy.clamp_max(4 * energy.mean())
    sums = F.pad(energy.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    totals = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(totals.argmax()), totals.shape[1])
    return slice(top, top + height), slice(left, left + width)


def _filled(y: Tensor, valid: Tensor) -> Tensor:
    """Replaces invalid pixels by the mean of the valid ones around them, as close to them as there are any."""
    filled = (y * valid).sum((-2, -1), keepdim=True) / valid.sum((-2, -1), keepdim=True).clamp_min(1)
    filled = filled.expand_as(y)
    for radius in (32, 16, 8, 4, 2, 1):
        if radius < min(y.shape[-2:]) // 2:
            share = box_mean(valid, radius)
            nearby = box_mean(y * valid, radius) / share.clamp_min(TINY)
            filled = torch.where(share > 0.05, nearby, filled)
    return torch.where(valid > 0, y, filled)
