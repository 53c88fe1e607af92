"""Operators that act on each pixel alone: noise, hidden pixels, clipping, gamma."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .parameter_priors import Gaussian, Range
from .parametric import Parameter, Parametric

CLIPPED = 0.99  # in the range [-1, 1]; pixels of larger magnitude count as clipped


class Denoising(Parametric):
    """y = x + n. Its only unknown is the noise level, which every restoration estimates."""

    parameters: dict[str, Parameter] = {}  # noqa: RUF012

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        return x

    def proximal(self, x0: Tensor, parameters: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """In closed form, pixel by pixel."""
        mask = self.measured(y)
        share = 1 / (1 + rho.view(-1, 1, 1, 1))
        return x0 + share * (y - x0) * (1 if mask is None else mask)


class Saturation(Denoising):
    """y = clip(x) + n: pixels that are black or white in any channel are masked out."""

    def measured(self, y: Tensor) -> Tensor:
        """(B, 1, h, w), 1 where no channel is clipped."""
        return (y.abs() < CLIPPED).all(1, keepdim=True).to(y.dtype)


class Inpainting(Parametric):
    """y = m x + (1 - m) c + n: pixels are hidden behind a colour c where m (B, 1, H, W) is 0.

    The M-step finds m. A hidden pixel equals c up to the noise, a visible one equals the image up to the error
    of its samples; the logarithm of the ratio of the two densities decides between them.

    Args:
        height, width: size of the image.
        colour: c in [-1, 1].
        shape: shape of the hidden region: "strokes" for any shape, m being the probability that a pixel is
            visible given itself and its neighbours; "rectangle" for the most likely rectangle, found exactly.
    """

    linear = False  # affine
    amplifies = False

    def __init__(
        self, height: int, width: int, colour: float = -1.0, shape: Literal["strokes", "rectangle"] = "strokes"
    ) -> None:
        self.colour, self.shape = colour, shape
        self.parameters = {"mask": Parameter(torch.ones(1, height, width), (Range(0, 1),))}

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        return self.colour + values["mask"] * (x - self.colour)

    def mean_square(self, x: Tensor, parameters: Tensor, y: Tensor) -> Tensor:
        """(B,) mean square of y - x over the visible pixels."""
        mask = self.unpack(parameters)["mask"]
        square = (mask * (y - x)).square().mean(1, keepdim=True)
        return square.sum((1, 2, 3)) / mask.square().sum((1, 2, 3)).clamp_min(1)

    def spectrum(self, x: Tensor, parameters: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        power = self.mean_square(x, parameters, y)[:, None]
        return torch.ones_like(power), power

    def proximal(self, x0: Tensor, parameters: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """In closed form, pixel by pixel."""
        mask = self.unpack(parameters)["mask"]
        return x0 + mask * (y - self.apply(x0, mask=mask)) / (mask.square() + rho.view(-1, 1, 1, 1))

    def adjoint(self, gap: Tensor, x: Tensor, parameters: Tensor) -> Tensor:
        return self.unpack(parameters)["mask"] * gap

    def initial(self, y: Tensor, known: object = None) -> Tensor:
        """Starts with every pixel visible that does not have the colour."""
        if known:
            return super().initial(y, known)  # type: ignore[arg-type]
        unlike = (y - self.colour).abs().amax(1, keepdim=True)
        return self.pack({"mask": (unlike > 0.2).to(y.dtype)})

    def m_step(self, x: Tensor, y: Tensor, parameters: Tensor, variance: Tensor) -> Tensor:
        """The mask (B, H W) from the likelihood ratio of every pixel."""
        spread = variance.view(-1, 1, 1, 1)
        gap = (y[:, None] - x.clamp(-1, 1)).square().mean(1)
        # The error of the samples is unknown; their mean error over certainly visible pixels stands for it.
        unlike = (y - self.colour).square()
        visible = (unlike.amax(1, keepdim=True) > 16 * spread).to(y.dtype)
        error = ((gap * visible).sum((1, 2, 3)) / (3 * visible.sum((1, 2, 3))).clamp_min(1)).view(-1, 1, 1, 1)
        error = torch.maximum(error, spread)
        ratio = (unlike / spread - gap / error + (spread / error).log()).sum(1, keepdim=True) / 2
        ratio = ratio.clamp(-_CERTAIN, _CERTAIN)
        if self.shape == "rectangle":
            mask = torch.stack([1 - _best_rectangle(-scores[0])[None] for scores in ratio])
        else:
            neighbours = F.avg_pool2d(ratio, 3, 1, 1, count_include_pad=False)
            mask = torch.sigmoid(ratio + neighbours)
        return self.pack({"mask": mask.to(y.dtype)})


_CERTAIN = 20.0  # bound on a pixel's log-likelihood ratio, so that one outlier does not outweigh a rectangle


def _best_rectangle(score: Tensor) -> Tensor:
    """(H, W) of 0 and 1: the rectangle with the greatest sum of `score` (H, W), none if no sum is positive.

    For every pair of rows the best run of columns follows from the cumulative sum of the column sums: it is the
    largest difference between a value and the smallest value before it.
    """
    height, width = score.shape
    rows = F.pad(score.cumsum(0), (0, 0, 1, 0))
    best, place = 0.0, (0, 0, 0, 0)
    for top in range(height):
        sums = F.pad((rows[top + 1 :] - rows[top]).cumsum(1), (1, 0))
        lowest, start = sums.cummin(1)
        gain = sums[:, 1:] - lowest[:, :-1]
        value, index = gain.flatten().max(0)
        if float(value) > best:
            bottom, right = divmod(int(index), width)
            best, place = float(value), (top, top + bottom + 1, int(start[bottom, right]), right + 1)
    rectangle = torch.zeros_like(score)
    rectangle[place[0] : place[1], place[2] : place[3]] = 1
    return rectangle


class Gamma(Parametric):
    """y = 2 u^gamma - 1 with u = (x + 1) / 2 in [0, 1]: a wrong or unknown tone curve.

    Any gamma explains any measurement, so an unknown one is determined by the priors alone: by the brightness
    and contrast of images from the diffusion prior, and by `Gaussian(1, 0.5)`.
    """

    linear = False

    def __init__(self) -> None:
        self.parameters = {"gamma": Parameter(1.0, (Range(0.2, 4.0), Gaussian(1.0, 0.5)))}

    def apply(self, x: Tensor, **values: Tensor) -> Tensor:
        return 2 * light(x) ** values["gamma"].view(-1, 1, 1, 1) - 1


def light(x: Tensor) -> Tensor:
    """(x + 1) / 2, clamped to [1e-3, 1]: below, powers have no bounded derivative."""
    return ((x + 1) / 2).clamp(1e-3, 1)
