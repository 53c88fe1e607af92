"""The figure of a reconstruction: inputs, estimated cameras seen from above, new views."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.projections.polar import PolarAxes
from torch import Tensor

from ..geometry.poses import POLAR_LIMIT

CELL = 1.3  # side of one picture in inches
COLUMNS = 6
TEXT = 8.0  # points


def plot_views(
    inputs: Tensor,
    poses: Tensor,
    confidence: Tensor,
    views: Tensor,
    targets: Tensor,
    sketches: Sequence[Tensor] = (),
) -> Figure:
    """Plots the inputs with their poses beside a map of the cameras, and the new views below.

    What was cut out of pictures is shown above the inputs.

    Args:
        inputs: (n, 3, S, S) known views in [-1, 1].
        poses: (n, 3) poses of the known views relative to the first, in radians.
        confidence: (n,) probabilities of the poses.
        views: (K, 3, S, S) new views in [-1, 1].
        targets: (K, 3) poses of the new views.
        sketches: (3, h, w) in [-1, 1] of each picture, see `Picture`; none if nothing was cut out.
    """
    titles = [
        f"view {i + 1}: {', '.join(angles(pose))}\nconfidence {float(probability):.2f}" if i else "view 1"
        for i, (pose, probability) in enumerate(zip(poses, confidence, strict=True))
    ]
    # Sketches fill whole rows, so that the inputs begin a new one.
    spare = -len(sketches) % COLUMNS
    pictures = [*sketches, *[None] * spare, *inputs]
    titles = [f"picture {i + 1}, cut out" for i in range(len(sketches))] + [""] * spare + titles
    counts = [math.ceil(len(images) / COLUMNS) for images in (pictures, views)]
    heights = [max(2.6, counts[0] * (CELL + 0.35)), counts[1] * (CELL + 0.25)]
    figure = Figure(figsize=(COLUMNS * CELL + 3.2, sum(heights)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.add_gridspec(2, 1, height_ratios=heights)
    upper, lower = (figure.add_subfigure(rows[i]) for i in range(2))
    columns = upper.add_gridspec(1, 2, width_ratios=[COLUMNS * CELL, 3.2])
    known, above = (upper.add_subfigure(columns[i]) for i in range(2))
    _pictures(known, pictures, titles)
    axes = above.add_subplot(projection="polar")
    assert isinstance(axes, PolarAxes)
    _map(axes, poses, targets)
    _pictures(lower, list(views), [", ".join(angles(pose)) for pose in targets])
    return figure


def _pictures(figure: SubFigure, images: Sequence[Tensor | None], titles: list[str]) -> None:
    rows = math.ceil(len(images) / COLUMNS)
    grid: list[Axes] = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, title in zip(grid, images, titles, strict=False):
        if image is not None:
            axes.imshow(((image + 1) / 2).clamp(0, 1).movedim(0, -1).numpy(), interpolation="nearest")
            axes.set_title(title, fontsize=TEXT)


def _map(axes: PolarAxes, known: Tensor, targets: Tensor) -> None:
    """Cameras seen from above: the farther out, the lower; the dashed circle is the height of view 1."""
    limit = math.degrees(POLAR_LIMIT)
    around = np.linspace(0, 2 * np.pi, 100)
    axes.plot(around, np.full(100, limit), "k--", linewidth=0.6)
    for poses, size, colour in ((targets, 8, "0.6"), (known, 60, "#4477aa")):
        heights = limit + poses[:, 0].rad2deg()
        axes.scatter(poses[:, 1].numpy(), heights.numpy(), s=size, color=colour, zorder=2)
    for i, pose in enumerate(known):
        place = float(pose[1]), limit + math.degrees(pose[0])
        axes.annotate(str(i + 1), place, color="white", fontsize=TEXT - 1, ha="center", va="center")
    axes.set_ylim(0, 2 * limit)
    axes.set_yticklabels([])
    axes.tick_params(labelsize=TEXT - 1)
    axes.grid(linewidth=0.3)
    axes.set_title("cameras from above", fontsize=TEXT)


def angles(pose: Tensor) -> tuple[str, str]:
    """Azimuth and elevation of a pose (3,) relative to view 1, in degrees, as text."""
    polar, azimuth, _ = pose.rad2deg().tolist()
    return f"{round(azimuth):+d}°", f"{round(-polar):+d}°"
