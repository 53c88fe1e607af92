"""What an evaluation leaves on disk: metrics.csv, settings.json, views and meshes; and resuming."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import trimesh
from torch import Tensor

from ...errors import UserError
from ...evaluation.store import write_table
from ...io.files import atomic_path, keep_settings, make_folder
from ...io.images import read_image, write_image


@dataclass(frozen=True)
class ViewRow:
    """The figures of one method for one object; None where there is nothing to measure.

    PSNR in dB and SSIM are means over the new views. Of pictures as files poses alone are measured: where the
    object is and how large is another convention there. `pose_error` and `pose_error_3` are of view 2 and 3 in
    degrees, `height_error` is that of view 1's polar angle as the surface needs it. The Chamfer distance is in
    units of the object's radius. `seconds` is the time for poses and views, `mesh_seconds` that for the mesh.
    """

    object: int
    method: str
    psnr: float | None
    ssim: float | None
    pose_error: float | None
    pose_error_3: float | None
    height_error: float | None
    chamfer: float | None
    iou: float | None
    seconds: float
    mesh_seconds: float | None


COLUMNS = tuple(field.name for field in fields(ViewRow))
FIGURES = COLUMNS[2:]


class ViewStore:
    """The output folder of one evaluation.

    Args:
        folder: created where it does not exist.
        settings: everything that determines the figures; a folder made with other settings is refused.

    Raises:
        UserError: other settings, unreadable files of an earlier run, or a folder that cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self._table = folder, folder / "metrics.csv"
        make_folder(folder)
        what_helps = "choose another folder with -o, or delete this one"
        keep_settings(folder / "settings.json", settings, "an evaluation", what_helps)
        self.rows = self._read() if self._table.exists() else []

    def _read(self) -> list[ViewRow]:
        try:
            with self._table.open(newline="", encoding="utf-8") as file:
                return [_parse(record) for record in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._table} is not a table of this program; delete it.") from error

    def object_folder(self, index: int) -> Path:
        """Where the files of an object go."""
        return self.folder / "objects" / f"{index:03d}"

    def _stem(self, row: ViewRow) -> Path:
        return self.object_folder(row.object) / row.method

    def find(self, index: int, method: str) -> ViewRow | None:
        """The finished row of a method for an object, if its views and its mesh are still there too."""
        for row in self.rows:
            if (row.object, row.method) == (index, method):
                kept = [".png"] if row.chamfer is None else [".png", ".ply"]
                return row if all(self._stem(row).with_suffix(ending).exists() for ending in kept) else None
        return None

    def add(self, row: ViewRow, views: Tensor, mesh: trimesh.Trimesh | None) -> None:
        """Writes what a method gave, and then the table with its row.

        Args:
            row: replaces an earlier one of the same object and method.
            views: (K, 3, S, S) in [-1, 1].
            mesh: in the coordinates of the object; None where there is none.
        """
        stem = self._stem(row)
        make_folder(stem.parent)
        write_image(stem.with_suffix(".png"), torch.cat(list(views), dim=-1))
        if mesh is not None:
            with atomic_path(stem.with_suffix(".ply")) as temporary:
                mesh.export(temporary)
        others = [r for r in self.rows if (r.object, r.method) != (row.object, row.method)]
        self.rows = sorted([*others, row], key=lambda r: r.object)
        write_table(self._table, COLUMNS, map(astuple, self.rows))

    def load(self, row: ViewRow) -> tuple[Tensor, trimesh.Trimesh | None]:
        """Views (K, 3, S, S) and mesh of a finished row."""
        stem = self._stem(row)
        strip = read_image(stem.with_suffix(".png")).pixels
        views = torch.cat(strip.split(strip.shape[-2], dim=-1))
        return views, trimesh.load_mesh(stem.with_suffix(".ply")) if row.chamfer is not None else None


def _parse(record: dict[str, str]) -> ViewRow:
    figures: dict[str, Any] = {name: float(record[name]) if record[name] else None for name in FIGURES}
    return ViewRow(int(record["object"]), record["method"], **figures)
