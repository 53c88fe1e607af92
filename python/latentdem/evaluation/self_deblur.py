"""Self-Deblur (Ren et al., 2020): two untrained networks, one for the image and one for the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import latentdem_ext as ext

from ..operators.blur import Blur
from ..output.result import Result
from .cases import Task

_INPUTS, _WIDTH, _DEPTH = 8, 32, 4  # encoder-decoder: noise channels, features, halvings
_CODE, _HIDDEN = 200, 1000  # kernel network: noise values, hidden features
_JITTER = 0.001  # standard deviation of the noise added to the input in every iteration
_RATES = {"image": 1e-2, "kernel": 1e-4}
_HALVINGS = (0.4, 0.6, 0.8)  # of the learning rates, in units of the iterations


class ImageNetwork(nn.Module):
    """Encoder-decoder with skip connections from noise (1, 8, H, W) to an image (1, C, H, W) in [-1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(_layer(_WIDTH if i else _INPUTS, stride=2), _layer(_WIDTH)) for i in range(_DEPTH)
        )
        self.skip = nn.ModuleList(_layer(_WIDTH if i else _INPUTS) for i in range(_DEPTH))
        self.up = nn.ModuleList(_layer(2 * _WIDTH) for _ in range(_DEPTH))
        self.last = nn.Conv2d(_WIDTH, channels, 1)

    def forward(self, noise: Tensor) -> Tensor:
        """The image (1, C, H, W)."""
        skips, x = [], noise
        for down, skip in zip(self.down, self.skip, strict=True):
            skips.append(skip(x))
            x = down(x)
        for up in self.up:
            beside = skips.pop()
            x = up(torch.cat([F.interpolate(x, beside.shape[-2:], mode="bilinear"), beside], 1))
        return torch.tanh(self.last(x))


def _layer(inputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, _WIDTH, 3, stride, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(_WIDTH),
        nn.LeakyReLU(0.2),
    )


def kernel_network(size: int) -> nn.Sequential:
    """Network from noise (1, 200) to the K * K values of a kernel, non-negative with sum 1."""
    return nn.Sequential(nn.Linear(_CODE, _HIDDEN), nn.ReLU6(), nn.Linear(_HIDDEN, size * size), nn.Softmax(-1))


@dataclass(frozen=True)
class SelfDeblur:
    """Fits the weights of both networks to ||y - k * x||^2 by Adam, from scratch for each image.

    Attributes:
        iterations: number of Adam steps per image.
    """

    iterations: int = 5000

    def __call__(self, task: Task) -> Result:
        started, batch = perf_counter(), len(task.blurred)
        fits = []
        with torch.random.fork_rng(devices=[]):
            for index, y in enumerate(task.blurred.split(1)):
                torch.manual_seed(task.settings.seed)
                fits.append(self._fit(y.to(task.device), task, index * self.iterations))
        image, kernel = (torch.cat(parts).cpu() for parts in zip(*fits, strict=True))
        return Result(
            image,
            kernel,
            task.blurred,
            torch.full((batch,), task.settings.noise_sigma),
            Blur(kernel.shape[-1]).residual(image, kernel, task.blurred),
            seconds={"total": perf_counter() - started},
        )

    @torch.enable_grad()
    def _fit(self, y: Tensor, task: Task, done: int) -> tuple[Tensor, Tensor]:
        (_, channels, height, width), size = y.shape, task.kernel.shape[-1]
        networks = {"image": ImageNetwork(channels).to(y.device), "kernel": kernel_network(size).to(y.device)}
        noise, code = torch.rand(1, _INPUTS, height, width), torch.rand(1, _CODE)
        noise, code = noise.to(y.device), code.to(y.device)
        adam = torch.optim.Adam(
            [{"params": networks[name].parameters(), "lr": rate} for name, rate in _RATES.items()]
        )
        milestones = [round(part * self.iterations) for part in _HALVINGS]
        rates = torch.optim.lr_scheduler.MultiStepLR(adam, milestones, 0.5)
        for i in range(self.iterations):
            jittered = noise + _JITTER * torch.randn(noise.shape).to(y.device)
            x, kernel = networks["image"](jittered), networks["kernel"](code).view(1, 1, size, size)
            loss = (ext.blur(x, kernel) - y).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            rates.step()
            task.progress("Self-Deblur", done + i + 1, len(task.blurred) * self.iterations)
        return x.detach(), kernel.detach()
