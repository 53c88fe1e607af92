"""Outputs of an evaluation on disk: table, images, kernels and accuracies, from which it resumes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import UserError
from ..io.files import atomic_path, keep_settings, make_folder
from ..io.images import read_image, write_image
from ..io.kernels import read_kernel, write_kernel
from .accuracy import Moment


@dataclass(frozen=True)
class Row:
    """Figures of one image; None where a figure was not measured.

    PSNR is in dB; `aligned` means after the best shift of quarter pixels, and kernel figures are always
    aligned; `noise_sigma` (the one used) and `residual` are in units of [-1, 1]. `memory_mb` is the resident
    memory of a program that ran by itself.
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
    noise_sigma: float | None
    residual: float | None
    seconds: float | None
    memory_mb: float | None = None


COLUMNS = tuple(field.name for field in fields(Row))
FIGURES = COLUMNS[2:]
MOMENTS = tuple(field.name for field in fields(Moment))


class ImageRow(Protocol):
    """A row about an image."""

    @property
    def index(self) -> int:
        """Number of the image."""
        ...

    @property
    def image(self) -> str:
        """Name of the image."""
        ...


RowT = TypeVar("RowT")
ImageRowT = TypeVar("ImageRowT", bound=ImageRow)
_PARSERS: dict[Any, Callable[[str], Any]] = {
    "int": int,
    "str": str,
    "int | None": lambda text: int(text) if text else None,
    "bool | None": lambda text: text == "True" if text else None,
}


class TableStore(Generic[RowT]):
    """The output folder of one evaluation, with a row of metrics.csv for each result.

    Args:
        folder: created if it does not exist.
        settings: everything that determines the figures; a folder with other settings is refused.
        row: dataclass of the rows: an index, a name, and figures annotated as numbers or numbers or None.

    Attributes:
        rows: all rows of the table.

    Raises:
        UserError: the settings differ, files of an earlier run are unreadable, or the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], row: type[RowT]) -> None:
        self.folder, self._table = folder, folder / "metrics.csv"
        self._parsers = {
            field.name: _PARSERS.get(field.type, _figure)
            for field in fields(row)  # type: ignore[arg-type]
        }
        self._columns = list(self._parsers)
        make_folder(folder)
        remedy = "choose another folder with -o, or delete this one"
        keep_settings(folder / "settings.json", settings, "an evaluation", remedy)
        self.rows = self._read(row) if self._table.exists() else []

    def _read(self, row: Callable[..., RowT]) -> list[RowT]:
        try:
            with self._table.open(newline="", encoding="utf-8") as file:
                return [
                    row(**{name: parse(record[name]) for name, parse in self._parsers.items()})
                    for record in csv.DictReader(file)
                ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._table} is not a table of this program; delete it.") from error

    def write_rows(self, rows: Iterable[RowT]) -> None:
        """Replaces the rows of the table, sorted by their index.

        Raises:
            UserError: the table cannot be written.
        """
        self.rows = sorted(rows, key=lambda row: getattr(row, self._columns[0]))
        cells = ([getattr(row, name) for name in self._columns] for row in self.rows)
        write_table(self._table, self._columns, cells)


class EvaluationStore(TableStore[ImageRowT]):
    """The output folder of one evaluation on images; see `TableStore`."""

    def __init__(self, folder: Path, settings: dict[str, Any], row: type[ImageRowT]) -> None:
        self.images = folder / "images"
        make_folder(self.images)
        super().__init__(folder, settings, row)

    def restored_path(self, index: int, name: str) -> Path:
        """Path of a restored image; the index keeps a.png and a.jpg apart."""
        return self.images / f"{index:03d}_{Path(name).stem}_restored.png"

    def _kernel_stem(self, index: int, name: str) -> Path:
        return self.images / f"{index:03d}_{Path(name).stem}_kernel"

    def find(self, index: int, name: str) -> ImageRowT | None:
        """The finished row of an image, if its restored image still exists."""
        rows = (row for row in self.rows if (row.index, row.image) == (index, name))
        return next(rows, None) if self.restored_path(index, name).exists() else None

    def add(self, row: ImageRowT, image: Tensor, kernel: Tensor, moments: Sequence[Moment] = ()) -> None:
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
        self.write_rows([*(other for other in self.rows if other.index != row.index), row])

    def load(self, row: ImageRowT) -> tuple[Tensor, Tensor]:
        """The restored image (1, C, H, W) and the kernel (1, 1, K, K) of a finished row."""
        kernel_path = self._kernel_stem(row.index, row.image)
        image = read_image(self.restored_path(row.index, row.image)).pixels
        return image, read_kernel(kernel_path.with_name(kernel_path.name + ".npy"))

    def _accuracy_path(self, row: ImageRowT) -> Path:
        return self.images / f"{row.index:03d}_{Path(row.image).stem}_accuracy.csv"

    def moments(self, row: ImageRowT) -> list[Moment]:
        """The kernel's accuracy over the run of a finished row; empty without a trace."""
        path = self._accuracy_path(row)
        if not path.exists():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Moment(record["stage"], int(record["t"]), float(record["residual"]), float(record["mnc"]))
                for record in csv.DictReader(file)
            ]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[int | str | float | None]]) -> None:
    """Writes a CSV file in one piece.

    Raises:
        UserError: `path` cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)


def mean_row(rows: Sequence[Row]) -> dict[str, float | None]:
    """Mean of every figure over the rows where it was measured; None where it never was."""
    means: dict[str, float | None] = {}
    for name in FIGURES:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        means[name] = float(torch.tensor(values, dtype=torch.float64).mean()) if values else None
    return means


def _cell(value: int | str | float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _figure(text: str) -> float | None:
    return float(text) if text else None
