"""Figures of runs and evaluations, drawn with matplotlib's objects alone: no pyplot, no global state."""

from __future__ import annotations

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

GAP, MARGIN, TITLE = 0.12, 0.15, 0.26  # inches: between panels, around the figure, above a panel
_LEGEND_ENTRY = 1.5  # inches
TEXT = 8.5  # points
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
    kernel_field: Tensor | None


class ParametricRun(Run, Protocol):
    """The part of a `Restored` that its figure needs."""

    parameters: dict[str, Tensor]
    measured: Tensor


class Sheet:
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
        axes = self.axes(left, top + TITLE, width, height)
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.ndim == 2 else {}
        axes.imshow(pixels, **grey, interpolation="antialiased", aspect="equal")
        axes.set_anchor("N")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=TEXT, pad=4)
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
    images_height = down * (image_height + TITLE) + (down - 1) * GAP
    images_width = across * image_width + (across - 1) * GAP
    side = min((images_height - (len(kernels) - 1) * GAP) / len(kernels) - TITLE, 2.9)

    trace = _moving(result.trace)
    content = images_width + GAP + side
    strip = (content - (_MOMENTS - 1) * GAP) / _MOMENTS if trace else 0.0
    strip_height = strip + TITLE + GAP if trace else 0.0
    colours = _colours(result.trace)
    legend_columns = max(1, int(content / _LEGEND_ENTRY))
    legend_height = 0.1 + 0.18 * -(-(len(colours) + 1) // legend_columns)
    curve_height = 1.85 + legend_height if result.trace else 0.0
    sheet = Sheet(2 * MARGIN + content, 2 * MARGIN + images_height + strip_height + curve_height)

    for i, (title, pixels) in enumerate(images):
        left = MARGIN if stacked else MARGIN + i * (image_width + GAP)
        top = MARGIN + i * (image_height + TITLE + GAP) if stacked else MARGIN
        sheet.picture(left, top, image_width, image_height, pixels, title)
    for i, (title, kernel) in enumerate(kernels):
        top = MARGIN + i * (side + TITLE + GAP)
        sheet.picture(MARGIN + images_width + GAP, top, side, side, kernel, title)

    top = MARGIN + images_height + GAP
    _film_strip(sheet, trace, colours, top, strip)
    if result.trace:
        left, below = 0.62, 0.42
        top += strip_height + legend_height
        axes = sheet.axes(left, top, sheet.width - left - MARGIN, sheet.height - top - below)
        _residual_curve(axes, result, colours, legend_columns)
    return sheet.figure


def plot_restored(result: ParametricRun) -> Figure:
    """Figure of the first image: input, result with its scalar parameters, and the residual over the steps."""
    height, width = result.tensor.shape[-2:]
    image_width = 2.9 * (width / height) ** 0.5
    image_height = image_width * height / width
    numbers = {name: value[0] for name, value in result.parameters.items() if value[0].numel() == 1}
    title = ", ".join(["result", *(f"{name} {float(value):.3g}" for name, value in numbers.items())])
    top = MARGIN + TITLE + image_height + GAP
    sheet = Sheet(2 * MARGIN + 2 * image_width + GAP, top + 2.4)
    pixels = to_pixels(result.measured)
    sheet.picture(MARGIN, MARGIN, image_width, image_height, pixels, "input")
    second = MARGIN + image_width + GAP
    sheet.picture(second, MARGIN, image_width, image_height, to_pixels(result.tensor), title)
    axes = sheet.axes(0.62, top + 0.4, sheet.width - 0.62 - MARGIN, 1.55)
    _residual_curve(axes, result, _colours(result.trace), max(1, int(sheet.width / _LEGEND_ENTRY)))
    return sheet.figure


def _images(result: DeblurringRun) -> list[tuple[str, np.ndarray]]:
    """Titles and pixels of the pictures of the photograph's size."""
    images = [("input", to_pixels(result.blurred)), ("result", to_pixels(result.tensor))]
    if result.uncertainty is not None:
        levels, top = uncertainty_levels(result.uncertainty)
        images.append((uncertainty_title(top), _reduced(torch.from_numpy(levels)[None, None])[0, 0].numpy()))
    return images


def _kernels(result: DeblurringRun, true_kernel: Tensor | None) -> list[tuple[str, np.ndarray]]:
    """Titles and pixels of the pictures of the kernel's size."""
    if result.kernel_field is not None:
        return [
            (
                f"kernels, {result.kernel.shape[-1]} x {result.kernel.shape[-1]}",
                field_pixels(result.kernel_field),
            )
        ]
    kernels = [("kernel", result.kernel)] + ([] if true_kernel is None else [("true kernel", true_kernel)])
    titled = [
        (f"{name}, {kernel.shape[-1]} x {kernel.shape[-1]}", kernel_pixels(kernel)) for name, kernel in kernels
    ]
    if result.kernel_uncertainty is not None:
        brighter = float(result.kernel[0].max() / result.kernel_uncertainty[0].max().clamp_min(1e-12))
        titled.append((f"deviation, x {brighter:.2g}", kernel_pixels(result.kernel_uncertainty)))
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


def _film_strip(sheet: Sheet, steps: list[TraceStep], colours: dict[str, str], top: float, side: float) -> None:
    for i, step in enumerate(steps):
        left = MARGIN + i * (side + GAP)
        axes = sheet.picture(left, top, side, side, kernel_pixels(step.parameters), f"t = {step.t}")
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
    axes.set_xlabel("full EM step", fontsize=TEXT, labelpad=2)
    axes.set_ylabel("residual", fontsize=TEXT, labelpad=2)
    axes.tick_params(labelsize=TEXT - 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=TEXT - 1,
        frameon=False,
        ncols=legend_columns,
        loc="lower right",
        bbox_to_anchor=(1, 0.98),
        borderaxespad=0,
        handlelength=1.5,
        columnspacing=1.2,
    )


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


def to_pixels(image: Tensor) -> np.ndarray:
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


def field_pixels(field: Tensor) -> np.ndarray:
    """First field of (B, G^2, K, K) as a picture of its kernels, each scaled to peak 1, with lines between."""
    kernels = field[0].detach().cpu().float()
    side = round(len(kernels) ** 0.5)
    kernels = F.pad(kernels / kernels.amax((-2, -1), keepdim=True).clamp_min(1e-12), (0, 1, 0, 1), value=0.5)
    rows = kernels.unflatten(0, (side, side)).transpose(1, 2)
    return rows.reshape(side * kernels.shape[-2], -1)[:-1, :-1].numpy()


def kernel_pixels(kernel: Tensor) -> np.ndarray:
    """First kernel of (B, 1, K, K) as (K, K), scaled to peak 1."""
    values = kernel[0, 0].detach().cpu().float()
    return (values / values.max().clamp_min(1e-12)).numpy()
