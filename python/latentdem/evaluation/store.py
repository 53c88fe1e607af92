"""Outputs of an evaluation on disk: table, images, kernels and accuracies, from which it resumes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..io.files import make_folder
from ..io.images import read_image, read_kernel, write_image, write_kernel
from .accuracy import Moment
from .row_store import RowStore, write_table


@dataclass(frozen=True)
class Row:
    """Figures of one image; None where a figure was not measured.

    PSNR is in dB; `aligned` means after the best whole-pixel shift, and kernel figures are always aligned;
    `noise_sigma` (the one used) and `residual` are in units of [-1, 1].
    """

    index: int
    image: str
    psnr_input: float
    psnr_input_aligned: float
    psnr: float
    psnr_aligned: float
    ssim: float
    ssim_aligned: float
    lpips: float | None
    lpips_aligned: float | None
    kernel_mse: float | None
    mnc: float | None
    noise_sigma: float
    residual: float
    seconds: float


COLUMNS = tuple(field.name for field in fields(Row))
FIGURES = COLUMNS[2:]
MOMENTS = tuple(field.name for field in fields(Moment))


class EvaluationStore(RowStore[Row]):
    """The output folder of one evaluation: its table, and images, kernels and accuracies in images/.

    Args and errors are those of `RowStore`.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.images = folder / "images"
        make_folder(self.images)
        super().__init__(folder, settings, Row)

    def restored_path(self, index: int, name: str) -> Path:
        """Path of a restored image; the index keeps a.png and a.jpg apart."""
        return self.images / f"{index:03d}_{Path(name).stem}_restored.png"

    def _kernel_stem(self, index: int, name: str) -> Path:
        return self.images / f"{index:03d}_{Path(name).stem}_kernel"

    def find(self, index: int, name: str) -> Row | None:
        """The finished row of an image, if its restored image still exists."""
        rows = (row for row in self.rows if (row.index, row.image) == (index, name))
        return next(rows, None) if self.restored_path(index, name).exists() else None

    def add(self, row: Row, image: Tensor, kernel: Tensor, moments: Sequence[Moment] = ()) -> None:
        """Writes the files of a result, and then the table with its row.

        Args:
            row: replaces an earlier row of the same index.
            image: (1, C, H, W) restored, in [-1, 1].
            kernel: (1, 1, K, K).
            moments: the kernel's accuracy over the run.
        """
        write_image(self.restored_path(row.index, row.image), image)
        write_kernel(self._kernel_stem(row.index, row.image), kernel)
        if moments:
            write_table(self._accuracy_path(row), MOMENTS, map(astuple, moments))
        self.put(row, key=lambda r: r.index, order=lambda r: r.index)

    def load(self, row: Row) -> tuple[Tensor, Tensor]:
        """The restored image (1, C, H, W) and the kernel (1, 1, K, K) of a finished row."""
        kernel_path = self._kernel_stem(row.index, row.image)
        image = read_image(self.restored_path(row.index, row.image)).pixels
        return image, read_kernel(kernel_path.with_name(kernel_path.name + ".npy"))

    def _accuracy_path(self, row: Row) -> Path:
        return self.images / f"{row.index:03d}_{Path(row.image).stem}_accuracy.csv"

    def moments(self, row: Row) -> list[Moment]:
        """The kernel's accuracy over the run of a finished row; empty without a trace."""
        path = self._accuracy_path(row)
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Moment(record["stage"], int(record["t"]), float(record["residual"]), float(record["mnc"]))
                for record in csv.DictReader(file)
            ]


def mean_row(rows: Sequence[Row]) -> dict[str, float | None]:
    """Mean of every figure over the rows where it was measured; None where it never was."""
    means: dict[str, float | None] = {}
    for name in FIGURES:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        means[name] = float(torch.tensor(values, dtype=torch.float64).mean()) if values else None
    return means
