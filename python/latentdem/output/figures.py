"""Figures of runs and evaluations, drawn with matplotlib's objects alone: no pyplot, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from ..io.files import atomic_path
from ..solver.state import TraceStep
from .pictures import uncertainty_levels, uncertainty_title

_GAP, _MARGIN, _TITLE = 0.12, 0.15, 0.26  # inches: between panels, around the figure, above a panel
_LEGEND_ENTRY = 1.5  # inches
_TEXT = 8.5  # points
_MOMENTS = 6
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#bbbbbb")
_FINEST = 1200  # pixels of an image's longer side that a figure can show


class Run(Protocol):
    """The part of a restoration that its curves need; see `Result` and `Restored` for the attributes."""

    tensor: Tensor
    noise_sigma: Tensor
    trace: list[TraceStep]


class DeblurringRun(Run, Protocol):
    """The part of a `Result` that its figure needs."""

    kernel: Tensor
    blurred: Tensor
    uncertainty: Tensor | None
    kernel_uncertainty: Tensor | None


class ParametricRun(Run, Protocol):
    """The part of a `Restored` that its figure needs."""

    parameters: dict[str, Tensor]
    measured: Tensor


class _Sheet:
    """A figure whose panels are placed in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = new_figure(width, height)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def picture(
        self, left: float, top: float, width: float, height: float, pixels: np.ndarray, title: str
    ) -> Axes:
        """An image with its title above it, `top` being the top of the title."""
        axes = self.axes(left, top + _TITLE, width, height)
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.ndim == 2 else {}
        axes.imshow(pixels, **grey, interpolation="antialiased", aspect="equal")
        axes.set_anchor("N")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=_TEXT, pad=4)
        return axes


def plot_result(result: DeblurringRun, true_kernel: Tensor | None = None) -> Figure:
    """Figure with input, result, kernel, the kernel at six moments of the run and the residual over its steps.

    Where they are known, the uncertainties of the image and of the kernel stand after these.

    Args:
        result: its first image is shown.
        true_kernel: (1, 1, K, K), shown beside the estimate where it is known.
    """
    height, width = result.tensor.shape[-2:]
    aspect = width / height
    stacked = aspect > 2
    # Inches: a panorama nine wide; everything else of the same area, but not taller than 4.5.
    image_height = max(9.0 / aspect, 0.9) if stacked else min(2.9 / aspect**0.5, 4.5)
    image_width = image_height * aspect
    images, kernels = _images(result), _kernels(result, true_kernel)
    # The kernels stand in a column beside the images, which is as high as they are.
    down, across = (len(images), 1) if stacked else (1, len(images))
    images_height = down * (image_height + _TITLE) + (down - 1) * _GAP
    images_width = across * image_width + (across - 1) * _GAP
    side = min((images_height - (len(kernels) - 1) * _GAP) / len(kernels) - _TITLE, 2.9)

    trace = _moving(result.trace)
    content = images_width + _GAP + side
    strip = (content - (_MOMENTS - 1) * _GAP) / _MOMENTS if trace else 0.0
    strip_height = strip + _TITLE + _GAP if trace else 0.0
    colours = _colours(result.trace)
    legend_columns = max(1, int(content / _LEGEND_ENTRY))
    legend_height = 0.1 + 0.18 * -(-(len(colours) + 1) // legend_columns)
    curve_height = 1.85 + legend_height if result.trace else 0.0
    sheet = _Sheet(2 * _MARGIN + content, 2 * _MARGIN + images_height + strip_height + curve_height)

    for i, (title, pixels) in enumerate(images):
        left = _MARGIN if stacked else _MARGIN + i * (image_width + _GAP)
        top = _MARGIN + i * (image_height + _TITLE + _GAP) if stacked else _MARGIN
        sheet.picture(left, top, image_width, image_height, pixels, title)
    for i, (title, kernel) in enumerate(kernels):
        top = _MARGIN + i * (side + _TITLE + _GAP)
        sheet.picture(_MARGIN + images_width + _GAP, top, side, side, kernel, title)

    top = _MARGIN + images_height + _GAP
    _film_strip(sheet, trace, colours, top, strip)
    if result.trace:
        left, below = 0.62, 0.42
        top += strip_height + legend_height
        axes = sheet.axes(left, top, sheet.width - left - _MARGIN, sheet.height - top - below)
        _residual_curve(axes, result, colours, legend_columns)
    return sheet.figure


def plot_restored(result: ParametricRun) -> Figure:
    """Figure of the first image: input, result with its scalar parameters, and the residual over the steps."""
    height, width = result.tensor.shape[-2:]
    image_width = 2.9 * (width / height) ** 0.5
    image_height = image_width * height / width
    numbers = {name: value[0] for name, value in result.parameters.items() if value[0].numel() == 1}
    title = ", ".join(["result", *(f"{name} {float(value):.3g}" for name, value in numbers.items())])
    top = _MARGIN + _TITLE + image_height + _GAP
    sheet = _Sheet(2 * _MARGIN + 2 * image_width + _GAP, top + 2.4)
    pixels = _pixels(result.measured)
    sheet.picture(_MARGIN, _MARGIN, image_width, image_height, pixels, "input")
    second = _MARGIN + image_width + _GAP
    sheet.picture(second, _MARGIN, image_width, image_height, _pixels(result.tensor), title)
    axes = sheet.axes(0.62, top + 0.4, sheet.width - 0.62 - _MARGIN, 1.55)
    _residual_curve(axes, result, _colours(result.trace), max(1, int(sheet.width / _LEGEND_ENTRY)))
    return sheet.figure


def _images(result: DeblurringRun) -> list[tuple[str, np.ndarray]]:
    """Titles and pixels of the pictures of the photograph's size."""
    images = [("input", _pixels(result.blurred)), ("result", _pixels(result.tensor))]
    if result.uncertainty is not None:
        levels, top = uncertainty_levels(result.uncertainty)
        images.append((uncertainty_title(top), _reduced(torch.from_numpy(levels)[None, None])[0, 0].numpy()))
    return images


def _kernels(result: DeblurringRun, true_kernel: Tensor | None) -> list[tuple[str, np.ndarray]]:
    """Titles and pixels of the pictures of the kernel's size."""
    kernels = [("kernel", result.kernel)] + ([] if true_kernel is None else [("true kernel", true_kernel)])
    titled = [(f"{name}, {kernel.shape[-1]} x {kernel.shape[-1]}", _kernel(kernel)) for name, kernel in kernels]
    if result.kernel_uncertainty is not None:
        share = float(result.kernel_uncertainty[0].max() / result.kernel[0].max().clamp_min(1e-12))
        titled.append((f"deviation, white is {share:.0%}", _kernel(result.kernel_uncertainty)))
    return titled


def _moving(trace: list[TraceStep]) -> list[TraceStep]:
    """Up to six evenly spaced steps; none if the kernel never changed, as a given one."""
    if len(trace) < 2:
        return []
    first, last = trace[0].parameters, trace[-1].parameters
    if first.shape == last.shape and bool((first == last).all()):
        return []
    picks = np.unique(np.linspace(0, len(trace) - 1, _MOMENTS).round().astype(int))
    return [trace[i] for i in picks]


def _colours(trace: list[TraceStep]) -> dict[str, str]:
    stages = list(dict.fromkeys(step.stage for step in trace))
    return {stage: COLOURS[i % len(COLOURS)] for i, stage in enumerate(stages)}


def _film_strip(
    sheet: _Sheet, steps: list[TraceStep], colours: dict[str, str], top: float, side: float
) -> None:
    for i, step in enumerate(steps):
        left = _MARGIN + i * (side + _GAP)
        axes = sheet.picture(left, top, side, side, _kernel(step.parameters), f"t = {step.t}")
        axes.spines[:].set(visible=True, color=colours[step.stage], linewidth=2)


def _residual_curve(axes: Axes, run: Run, colours: dict[str, str], legend_columns: int) -> None:
    residuals = np.array([float(step.residual[0]) for step in run.trace])
    stages = [step.stage for step in run.trace]
    for stage, colour in colours.items():
        indices = np.array([i for i, name in enumerate(stages) if name == stage])
        axes.plot(indices + 1, residuals[indices], color=colour, linewidth=1.6, marker=".", ms=4, label=stage)
    sigma = float(run.noise_sigma[0])
    axes.axhline(sigma, color="black", linestyle="--", linewidth=1, label=f"noise sigma {sigma:.3g}")
    axes.set_yscale("log")
    axes.set_xlim(0.5, len(residuals) + 0.5)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("full EM step", fontsize=_TEXT, labelpad=2)
    axes.set_ylabel("residual", fontsize=_TEXT, labelpad=2)
    axes.tick_params(labelsize=_TEXT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=_TEXT - 1,
        frameon=False,
        ncols=legend_columns,
        loc="lower right",
        bbox_to_anchor=(1, 0.98),
        borderaxespad=0,
        handlelength=1.5,
        columnspacing=1.2,
    )


@dataclass(frozen=True)
class Panel:
    """A picture (1, C, H, W) in [-1, 1] with its title."""

    image: Tensor
    title: str


def panels(rows: Sequence[Sequence[Panel]], path: str | Path, side: float = 1.5) -> None:
    """Writes a figure of rows of pictures, each `side` inches wide.

    Raises:
        UserError: `path` cannot be written.
    """
    columns = max(len(row) for row in rows)
    step = side + _TITLE + _GAP
    sheet = _Sheet(2 * _MARGIN + columns * (side + _GAP) - _GAP, 2 * _MARGIN + len(rows) * step)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = _MARGIN + j * (side + _GAP), _MARGIN + i * step
            sheet.picture(left, top, side, side, _pixels(panel.image), panel.title)
    save_figure(sheet.figure, path)


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet; images (1, C, H, W) in [-1, 1], kernels (1, 1, K, K) of any scale."""

    name: str
    blurred: Tensor
    image: Tensor
    reference: Tensor | None
    kernel: Tensor
    true_kernel: Tensor | None
    blurred_caption: str = ""
    image_caption: str = ""
    kernel_caption: str = ""


def contact_sheet(rows: Sequence[SheetRow], path: str | Path, cell: float = 1.9) -> None:
    """Writes a figure with one row per image: input, result, reference, estimated and true kernel.

    Reference and true kernel are left out where they are unknown. Images are `cell` inches wide.

    Raises:
        UserError: `path` cannot be written.
    """
    kernel_cell = cell * 1.3 / 1.9
    heights = [max(cell * min(1.0, r.image.shape[-2] / r.image.shape[-1]), kernel_cell) for r in rows]
    images = 3 if any(r.reference is not None for r in rows) else 2
    kernels = 2 if any(r.true_kernel is not None for r in rows) else 1
    width = 2 * _MARGIN + images * (cell + _GAP) + kernels * (kernel_cell + _GAP) - _GAP
    sheet = _Sheet(width, 2 * _MARGIN + sum(heights) + len(rows) * (_TITLE + _GAP))
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        cells = [
            (cell, _pixels(row.blurred), f"{_shortened(row.name)}  {row.blurred_caption}"),
            (cell, _pixels(row.image), row.image_caption),
        ]
        if row.reference is not None:
            cells.append((cell, _pixels(row.reference), "reference"))
        cells.append((kernel_cell, _kernel(row.kernel), row.kernel_caption))
        if row.true_kernel is not None:
            cells.append((kernel_cell, _kernel(row.true_kernel), "true kernel"))
        left = _MARGIN
        for size, pixels, title in cells:
            sheet.picture(left, top, size, min(height, size), pixels, title)
            left += size + _GAP
        top += height + _TITLE + _GAP
    save_figure(sheet.figure, path)


def comparison_sheet(rows: Sequence[Sequence[tuple[str, Tensor, Tensor]]], path: str | Path) -> None:
    """Writes a figure with one row per image and one column per method.

    Args:
        rows: cells (caption, image (1, C, H, W) in [-1, 1], kernel (1, 1, K, K)); the kernel is drawn into the
            lower left corner of the image.
        path: PNG file to write.

    Raises:
        UserError: `path` cannot be written.
    """
    cell = 1.5
    width = 2 * _MARGIN + max(len(row) for row in rows) * (cell + _GAP) - _GAP
    heights = [cell * min(1.0, max(x.shape[-2] / x.shape[-1] for _, x, _ in row)) for row in rows]
    sheet = _Sheet(width, 2 * _MARGIN + sum(heights) + len(rows) * (_TITLE + _GAP))
    top = _MARGIN
    for row, height in zip(rows, heights, strict=True):
        for i, (caption, image, kernel) in enumerate(row):
            left = _MARGIN + i * (cell + _GAP)
            axes = sheet.picture(left, top, cell, height, _pixels(image), "")
            axes.set_title(_shortened(caption, 26), fontsize=_TEXT - 2, pad=3)
            corner = axes.inset_axes((0.0, 0.0, 0.3, 0.3))
            corner.imshow(_kernel(kernel), cmap="gray", vmin=0, vmax=1)
            corner.set(xticks=[], yticks=[])
        top += height + _TITLE + _GAP
    save_figure(sheet.figure, path)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """An empty white figure of this size in inches, which can be drawn without a display."""
    figure = Figure(figsize=(width, height), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure as PNG at 150 dots per inch.

    Raises:
        UserError: `path` cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _pixels(image: Tensor) -> np.ndarray:
    """First image of (B, C, H, W) as (H, W) or (H, W, 3) in [0, 1], reduced if it is very large."""
    first = _reduced(((image[:1].detach().cpu().float() + 1) / 2).clamp(0, 1))
    return first[0].permute(1, 2, 0).squeeze(-1).numpy()


def _reduced(image: Tensor) -> Tensor:
    """An image (1, C, H, W) in no more pixels than a figure can show."""
    scale = _FINEST / max(image.shape[-2:])
    if scale >= 1:
        return image
    size = [max(1, round(n * scale)) for n in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _kernel(kernel: Tensor) -> np.ndarray:
    """First kernel of (B, 1, K, K) as (K, K), scaled to peak 1."""
    values = kernel[0, 0].detach().cpu().float()
    return (values / values.max().clamp_min(1e-12)).numpy()


def _shortened(name: str, longest: int = 18) -> str:
    half = longest // 2
    return name if len(name) <= longest else name[: half - 1] + "…" + name[-half:]
