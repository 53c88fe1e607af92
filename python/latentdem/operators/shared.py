"""Blur of several photographs with one kernel."""

from __future__ import annotations

from torch import Tensor

from .blur import Blur


class SharedBlur(Blur):
    """`Blur` of a batch whose images have one kernel, which the M-step finds from all of them.

    The sum of squares is over the images, as it is over channels. They have one mask.
    """

    def m_step(self, x: Tensor, y: Tensor, kernel: Tensor, variance: Tensor) -> Tensor:
        """The kernel (B, 1, K, K), the same for each, that explains all images (see `Blur.m_step`)."""
        if self.fixed:
            return kernel
        samples = x.transpose(0, 1).flatten(1, 2)[None]  # (1, S, B C, H, W)
        found = super().m_step(samples, y.flatten(0, 1)[None], kernel[:1], variance.mean()[None])
        return found.repeat(len(kernel), 1, 1, 1)

    def _level(self, kernel: Tensor, delta: float) -> Tensor:
        level = self.hqs.noise_level
        count = len(level) if isinstance(level, Tensor) else 1
        return super()._level(kernel.expand(count, -1, -1, -1), delta)[:1]
