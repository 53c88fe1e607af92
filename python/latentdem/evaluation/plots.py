"""Plots of a protocol: quality against time, and accuracy of the kernel over the diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from ..output.figures import COLOURS, new_figure, save_figure
from ..solver.schedules import Annealing
from .accuracy import Moment
from .store import Row


def plot_seconds(methods: Sequence[tuple[str, Sequence[Row]]], path: str | Path) -> None:
    """Writes a plot of aligned PSNR against seconds, mean and spread over the images of each method.

    Args:
        methods: title and rows of each method.
        path: PNG file to write.

    Raises:
        UserError: `path` cannot be written.
    """
    figure = new_figure(7.0, 4.2, layout="constrained")
    axes = figure.add_subplot()
    for i, (title, rows) in enumerate(methods):
        seconds, psnr = (np.array([getattr(row, name) for row in rows]) for name in ("seconds", "psnr_aligned"))
        marker = "os^Dv"[i // len(COLOURS) % 5]
        axes.errorbar(
            seconds.mean(),
            psnr.mean(),
            yerr=psnr.std(),
            fmt=marker,
            color=COLOURS[i % len(COLOURS)],
            capsize=3,
            label=title,
        )
    inputs = float(np.mean([row.psnr_input_aligned for row in methods[0][1]]))
    axes.axhline(inputs, color="black", linestyle="--", linewidth=1, label="input")
    axes.set_xscale("log")
    axes.set(xlabel="seconds per image", ylabel="PSNR in dB, aligned")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def plot_accuracy(
    methods: Mapping[str, Sequence[Sequence[Moment]]], noise_sigma: float, path: str | Path
) -> None:
    """Writes a plot of the accuracy of the kernels over t, and of the annealing factor below it (Fig. 5).

    A column per method; each pass of the diffusion is a line, with the standard deviation over the images
    around it. The factor is shown as the zeta_t of the paper and as measured: the mean square of
    y - k * x0 in units of the variance of the noise.

    Args:
        methods: moments of the run of every image, by title of the method.
        noise_sigma: standard deviation of the noise, in units of [-1, 1].
        path: PNG file to write.

    Raises:
        UserError: `path` cannot be written.
    """
    figure = new_figure(max(3.2 * len(methods), 4.5), 4.6, layout="constrained")
    grid = figure.subplots(2, len(methods), sharex=True, sharey="row", squeeze=False)
    for column, (title, runs) in enumerate(methods.items()):
        upper, lower = grid[:, column]
        for colour, (stage, passes) in zip(COLOURS * 4, _passes(runs).items(), strict=False):
            times = [moment.t for moment in passes[0]]
            _band(upper, times, np.array([[m.mnc for m in run] for run in passes]), colour, stage)
            factor = np.array([[(m.residual / noise_sigma) ** 2 for m in run] for run in passes])
            _band(lower, times, np.log10(factor), colour, "")
        times = list(range(999, -1, -1))
        paper = np.log10([Annealing()(t) for t in times])
        lower.plot(times, paper, color="black", linestyle="--", linewidth=1, label="zeta of the paper")
        upper.set_title(title, fontsize=9)
        upper.legend(fontsize=6, frameon=False)
        lower.legend(fontsize=6, frameon=False)
        lower.set(xlabel="t", xlim=(1000, 0))
    grid[0, 0].set(ylabel="MNC of the kernel", ylim=(0, 1))
    grid[1, 0].set(ylabel="log10 of the annealing factor")
    save_figure(figure, path)


def _passes(runs: Sequence[Sequence[Moment]]) -> dict[str, list[list[Moment]]]:
    """Moments of all runs by number of the diffusion, in order; for each a list per image."""
    passes: dict[str, list[list[Moment]]] = {}
    for run in runs:
        number, before = 0, -1
        for moment in run:
            if moment.t > before:
                number += 1
                passes.setdefault(f"diffusion {number}", []).append([])
            passes[f"diffusion {number}"][-1].append(moment)
            before = moment.t
    return passes


def _band(axes: Axes, times: Sequence[int], values: np.ndarray, colour: str, label: str) -> None:
    """Draws the mean of `values` (images, times) over the images, and their standard deviation as a band."""
    mean, spread = values.mean(0), values.std(0)
    axes.plot(times, mean, color=colour, linewidth=1.4, label=label or None)
    axes.fill_between(times, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
