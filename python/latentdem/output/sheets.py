"""Figures of many runs: rows of pictures side by side, drawn as the figures of single runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .figures import GAP, MARGIN, TEXT, TITLE, Sheet, kernel_pixels, save_figure, to_pixels


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
    step = side + TITLE + GAP
    sheet = Sheet(2 * MARGIN + columns * (side + GAP) - GAP, 2 * MARGIN + len(rows) * step)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = MARGIN + j * (side + GAP), MARGIN + i * step
            sheet.picture(left, top, side, side, to_pixels(panel.image), panel.title)
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
    width = 2 * MARGIN + images * (cell + GAP) + kernels * (kernel_cell + GAP) - GAP
    sheet = Sheet(width, 2 * MARGIN + sum(heights) + len(rows) * (TITLE + GAP))
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        cells = [
            (cell, to_pixels(row.blurred), f"{_shortened(row.name)}  {row.blurred_caption}"),
            (cell, to_pixels(row.image), row.image_caption),
        ]
        if row.reference is not None:
            cells.append((cell, to_pixels(row.reference), "reference"))
        cells.append((kernel_cell, kernel_pixels(row.kernel), row.kernel_caption))
        if row.true_kernel is not None:
            cells.append((kernel_cell, kernel_pixels(row.true_kernel), "true kernel"))
        left = MARGIN
        for size, pixels, title in cells:
            sheet.picture(left, top, size, min(height, size), pixels, title)
            left += size + GAP
        top += height + TITLE + GAP
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
    width = 2 * MARGIN + max(len(row) for row in rows) * (cell + GAP) - GAP
    heights = [cell * min(1.0, max(x.shape[-2] / x.shape[-1] for _, x, _ in row)) for row in rows]
    sheet = Sheet(width, 2 * MARGIN + sum(heights) + len(rows) * (TITLE + GAP))
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for i, (caption, image, kernel) in enumerate(row):
            left = MARGIN + i * (cell + GAP)
            axes = sheet.picture(left, top, cell, height, to_pixels(image), "")
            axes.set_title(_shortened(caption, 26), fontsize=TEXT - 2, pad=3)
            corner = axes.inset_axes((0.0, 0.0, 0.3, 0.3))
            corner.imshow(kernel_pixels(kernel), cmap="gray", vmin=0, vmax=1)
            corner.set(xticks=[], yticks=[])
        top += height + TITLE + GAP
    save_figure(sheet.figure, path)


def _shortened(name: str, longest: int = 18) -> str:
    half = longest // 2
    return name if len(name) <= longest else name[: half - 1] + "…" + name[-half:]
