"""For `guided_diffusion.measurements` of DPS and BlindDPS, and their conditioning step.

Blurs are cross-correlations, of the reflected image with fixed weights or of the image on black with a given
kernel; downsampling weighs the pixels that a cubic kernel of four output pixels' width meets, reflected at the
borders. Images are in [-1, 1]; the norm is one over the whole batch and not squared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Blurkernel(nn.Module):
    def __init__(self, blur_type="gaussian", kernel_size=31, std=3.0, device=None):
        super().__init__()
        self.kernel_size = kernel_size
        convolution = nn.Conv2d(3, 3, kernel_size, bias=False, groups=3)
        self.seq = nn.Sequential(nn.ReflectionPad2d(kernel_size // 2), convolution)
        offsets = torch.arange(kernel_size) - kernel_size // 2
        bell = torch.exp(-(offsets**2) / (2 * std**2))
        self.update_weights(torch.outer(bell, bell) / bell.sum() ** 2)

    def forward(self, x):
        return self.seq(x)

    def update_weights(self, k):
        for parameter in self.parameters():
            parameter.data.copy_(k)


class SizedBlurkernel(Blurkernel):
    """The `Blurkernel` of the LatentDEM release: kernels with even sides keep the size, other attributes."""

    def __init__(self, blur_type="gaussian", kernel_size=31, std=3.0, device=None):
        super().__init__(blur_type, kernel_size, std, device)
        before, after = kernel_size // 2, (kernel_size - 1) // 2
        self.padding_module = nn.ReflectionPad2d((before, after, before, after))
        self.conv = self.seq[1]
        del self.seq

    def forward(self, x):
        return self.conv(self.padding_module(x))


class Resizer(nn.Module):
    def __init__(self, in_shape, scale_factor):
        super().__init__()
        self.sorted_dims = [2, 3]
        taps, weights = zip(*(self._taps(in_shape[dim], scale_factor) for dim in self.sorted_dims), strict=True)
        as_parameters = (nn.ParameterList(nn.Parameter(t, False) for t in ts) for ts in (taps, weights))
        self.field_of_view, self.weights = as_parameters

    @staticmethod
    def _taps(length, scale):
        out, width = int(length * scale), int(4 / scale)
        centre = (torch.arange(out) + 0.5) / scale - 0.5
        pixels = (centre - width / 2).ceil()[None] + torch.arange(width)[:, None]
        distance = ((pixels - centre) * scale).abs()
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weights = torch.where(distance <= 1, near, far * (distance <= 2))
        mirrored = torch.where(pixels < 0, -1 - pixels, pixels)
        mirrored = torch.where(mirrored >= length, 2 * length - 1 - mirrored, mirrored).long()
        return mirrored, (weights / weights.sum(0))[..., None, None, None]

    def forward(self, in_tensor):
        x = in_tensor
        for dim, taps, weights in zip(self.sorted_dims, self.field_of_view, self.weights, strict=True):
            x = (x.transpose(dim, 0)[taps] * weights).sum(0).transpose(dim, 0)
        return x


class BlindBlurOperator:
    def __init__(self, device, **kwargs):
        self.device = device

    def apply_kernel(self, data, kernel):
        """Of one image: the result of a channel does not fit into that of more."""
        blurred = torch.zeros_like(data)
        for i in range(3):
            blurred[:, i] = F.conv2d(data[:, i : i + 1], kernel, padding="same")
        return blurred

    def forward(self, data, kernel, **kwargs):
        return self.apply_kernel(data, kernel)


class TurbulenceOperator(BlindBlurOperator):
    def apply_kernel(self, data, kernel):
        return super().apply_kernel(data, kernel)


class MotionBlurOperator:
    def __init__(self, kernel_size):
        self.conv = Blurkernel("motion", kernel_size)

    def forward(self, data, **kwargs):
        return self.conv(data)


def conditioning(x_prev, x_t, x_0_hat, measurement, operator, scale):
    """`PosteriorSampling.conditioning` with Gaussian noise."""
    norm = torch.linalg.norm(measurement - operator.forward(x_0_hat))
    (norm_grad,) = torch.autograd.grad(norm, x_prev)
    return x_t - norm_grad * scale, norm
