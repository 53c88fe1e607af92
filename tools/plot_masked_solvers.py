"""Figure of error against transforms for the least squares of a blur of which only a window was measured.

    python tools/plot_masked_solvers.py docs/figures/masked_solvers.png

The picture is a part of scikit-image's camera, blurred by a random motion kernel; the prediction is the picture
smoothed, with noise. Takes some seconds on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import torch
from skimage import data
from torch import Tensor

import latentdem_ext as ext
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.solver.frame import Frame
from latentdem_ext.reference.masked import PROXIMAL_TOLERANCE

SIDE, KERNEL = 199, 27
RHOS = (1e-2, 1e-3, 1e-4)
ITERATIONS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
ADMM_WEIGHTS = (0.01, 0.1, 1.0)


class Problem:
    """argmin_x ||mask (y - k * x)||^2 + rho ||x - x0||^2 in float64; solvers yield x once an iteration."""

    def __init__(self, rho: float) -> None:
        camera = torch.from_numpy(data.camera()).double() / 127.5 - 1
        frame = Frame.extended(SIDE, SIDE, KERNEL, 32)
        rows, columns = (slice(100, 100 + n) for n in frame.grid)
        x, self.kernel = camera[None, None, rows, columns], motion_kernels(1, KERNEL, 0.5, 3).double()
        generator = torch.Generator().manual_seed(0)
        self.shape, self.rho, self.crop = frame.grid, rho, frame.crop
        mask = frame.mask()
        assert mask is not None
        self.mask = mask.double()
        self.x0 = ext.blur(x, gaussian_kernel(5, 1.0).double())
        self.x0 = self.x0 + 0.05 * torch.randn(x.shape, generator=generator).double()
        self.y = self.mask * ext.blur(x, self.kernel)
        self.otf = ext.kernel_to_otf(self.kernel, self.shape)
        self.power = self.otf.abs() ** 2
        self.missing = self.mask * (self.y - self.blur(self.x0))

    def blur(self, x: Tensor) -> Tensor:
        return self.filtered(self.otf, x)

    def filtered(self, transfer: Tensor, image: Tensor) -> Tensor:
        return torch.fft.irfft2(transfer * torch.fft.rfft2(image), s=self.shape)

    def image(self, fill: Tensor) -> Tensor:
        """The image for a correction `fill` of the unmeasured pixels."""
        closed = self.otf.conj() / (self.power + self.rho)
        return self.x0 + self.filtered(closed, self.missing + fill)

    def gap(self, image: Tensor) -> Tensor:
        return (1 - self.mask) * self.filtered(self.rho / (self.power + self.rho), image)

    def present(self, iterations: int) -> Tensor:
        rho = torch.tensor([self.rho]).double()
        arguments = self.x0, self.kernel, self.y, self.mask, rho
        return ext.masked_proximal(*arguments, tolerance=0.0, iterations=iterations)[0]

    def filling(self) -> Iterator[Tensor]:
        fill = torch.zeros_like(self.x0)
        while True:
            yield self.image(fill)
            fill = fill - self.gap(self.missing + fill)

    def conjugate_gradients(self) -> Iterator[Tensor]:
        fill = torch.zeros_like(self.x0)
        residual = direction = -self.gap(self.missing)
        while True:
            yield self.image(fill)
            mapped = self.gap(direction)
            before = residual.square().sum()
            step = before / (direction * mapped).sum()
            fill, residual = fill + step * direction, residual - step * mapped
            direction = residual + residual.square().sum() / before * direction

    def admm(self, weight: float) -> Iterator[Tensor]:
        """The mask apart from the blur, as Almeida and Figueiredo (2013) split them."""
        change = split = dual = torch.zeros_like(self.x0)
        while True:
            yield self.x0 + change
            gain = weight * self.otf.conj() / (weight * self.power + self.rho)
            change = self.filtered(gain, split + dual)
            blurred = self.blur(change)
            split = (self.missing + weight * (blurred - dual)) / (self.mask + weight)
            dual = dual - (blurred - split)


def errors(problem: Problem) -> dict[str, list[float]]:
    """Root mean square errors inside the photograph after each of `ITERATIONS`."""
    exact = problem.present(200)

    def error(x: Tensor) -> float:
        return float(problem.crop(x - exact).square().mean().sqrt())

    def of(solver: Callable[[], Iterator[Tensor]]) -> list[float]:
        steps = solver()
        return [error(next(steps)) for _ in range(ITERATIONS[-1] + 1)]

    splits = (of(lambda w=weight: problem.admm(w)) for weight in ADMM_WEIGHTS)  # type: ignore[misc]
    curves = {
        "fill and solve again": of(problem.filling),
        "ADMM, best weight at 32": min(splits, key=lambda curve: curve[-1]),
        "conjugate gradients": of(problem.conjugate_gradients),
    }
    selected = {name: [curve[n] for n in ITERATIONS] for name, curve in curves.items()}
    return {**selected, "with exact frame (used)": [error(problem.present(n)) for n in ITERATIONS]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", help="picture to write")
    figure, axes = plt.subplots(1, len(RHOS), figsize=(10, 3.2), sharey=True, layout="constrained")
    out = parser.parse_args().out
    for axis, rho in zip(axes, RHOS, strict=True):
        for name, curve in errors(Problem(rho)).items():
            axis.semilogy([2 * n for n in ITERATIONS], curve, marker=".", label=name)
        axis.axhline(PROXIMAL_TOLERANCE, color="grey", linestyle=":")
        axis.set(title=f"rho = {rho:g}", xlabel="transforms in iterations", ylim=(1e-6, 1))
    axes[0].set_ylabel("root mean square error")
    axes[-1].legend(fontsize=8)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
