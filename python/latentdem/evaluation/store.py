"""What an evaluation leaves on disk: metrics.csv, settings.json, images, kernels, accuracies; and resuming."""

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
from ..io.images import read_image, read_kernel, write_image, write_kernel
from .accuracy import Moment


@dataclass(frozen=True)
class Row:
    """The figures of one image; None where a figure was not measured.

    PSNR is in dB, `aligned` means after the best whole-pixel shift, the kernel figures are always aligned,
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


class AnyRow(Protocol):
    """A row of a table, a dataclass with fields annotated as int, str, bool, float or float | None."""

    @property
    def index(self) -> int:
        """Number of the image."""
        ...

    @property
    def image(self) -> str:
        """Name of the image."""
        ...


R = TypeVar("R", bound=AnyRow)
_PARSERS: dict[Any, Callable[[str], Any]] = {"int": int, "str": str, "bool": lambda text: text == "True"}
COLUMNS = tuple(field.name for field in fields(Row))
FIGURES = COLUMNS[2:]
MOMENTS = tuple(field.name for field in fields(Moment))


class EvaluationStore(Generic[R]):
    """The output folder of one evaluation.

    Args:
        folder: created where it does not exist.
        settings: everything that determines the figures; a folder made with other settings is refused.
        row_type: type of the rows.

    Raises:
        UserError: other settings, unreadable files of an earlier run, or a folder that cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], row_type: type[R]) -> None:
        self.folder, self.images, self._row_type = folder, folder / "images", row_type
        make_folder(self.images)
        self._settings_path, self._csv_path = folder / "settings.json", folder / "metrics.csv"
        keep_settings(
            self._settings_path,
            settings,
            "an evaluation",
            "choose another folder with -o, or delete this one",
        )
        self.rows = self._read() if self._csv_path.exists() else []

    def _read(self) -> list[R]:
        try:
            with self._csv_path.open(newline="", encoding="utf-8") as file:
                return [self._parse(record) for record in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._csv_path} is not a table of this program; delete it.") from error

    def _parse(self, record: dict[str, str]) -> R:
        parsers = {field.name: _PARSERS.get(field.type, _figure) for field in fields(self._row_type)}  # type: ignore[arg-type]
        return self._row_type(**{name: parse(record[name]) for name, parse in parsers.items()})

    def restored_path(self, index: int, name: str) -> Path:
        """Where the restored image goes; the index keeps a.png and a.jpg apart."""
        return self.images / f"{index:03d}_{Path(name).stem}_restored.png"

    def _kernel_stem(self, index: int, name: str) -> Path:
        return self.images / f"{index:03d}_{Path(name).stem}_kernel"

    def find(self, index: int, name: str) -> R | None:
        """The finished row of an image, if its restored image is still there too."""
        rows = (row for row in self.rows if (row.index, row.image) == (index, name))
        return next(rows, None) if self.restored_path(index, name).exists() else None

    def add(self, row: R, image: Tensor, kernel: Tensor, moments: Sequence[Moment] = ()) -> None:
        """Writes a result's files and then the table with its row.

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
        self.rows = sorted([r for r in self.rows if r.index != row.index] + [row], key=lambda r: r.index)
        columns = [field.name for field in fields(self._row_type)]  # type: ignore[arg-type]
        write_table(self._csv_path, columns, (astuple(r) for r in self.rows))  # type: ignore[call-overload]

    def load(self, row: R) -> tuple[Tensor, Tensor]:
        """The restored image (1, C, H, W) and the kernel (1, 1, K, K) of a finished row."""
        kernel_path = self._kernel_stem(row.index, row.image)
        image = read_image(self.restored_path(row.index, row.image)).pixels
        return image, read_kernel(kernel_path.with_name(kernel_path.name + ".npy"))

    def _accuracy_path(self, row: R) -> Path:
        return self.images / f"{row.index:03d}_{Path(row.image).stem}_accuracy.csv"

    def moments(self, row: R) -> list[Moment]:
        """The kernel's accuracy over the run of a finished row; empty if it was given or found in one go."""
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
