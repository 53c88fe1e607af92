"""Output folder of an evaluation: metrics.csv, settings.json, views and meshes, from which it resumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trimesh
from torch import Tensor

from ...evaluation.store import TableStore
from ...io.files import atomic_path, make_folder
from ...io.images import read_image, write_image


@dataclass(frozen=True)
class ViewRow:
    """Figures of one method for one object; None where there is nothing to measure.

    PSNR in dB and SSIM are means over the new views. For pictures from files only poses are measured, as
    position and size of the object follow another convention there. `pose_error` and `pose_error_3` are those
    of views 2 and 3 in degrees, `nearest_error` and `nearest_error_3` those to the nearest pose from which the
    object looks the same (`true_cameras`), `confidence` and `confidence_3` the probabilities of these poses as
    the search estimates them. `height_error` is that of the polar angle of view 1 in degrees, which the surface
    needs. The Chamfer distance is in units of the object's radius. `seconds` is the time for poses and views,
    `mesh_seconds` that for the mesh. `memory_mb` is the resident memory of a program that ran by itself.
    """

    object: int
    name: str
    method: str
    psnr: float | None
    ssim: float | None
    pose_error: float | None
    pose_error_3: float | None
    nearest_error: float | None
    nearest_error_3: float | None
    confidence: float | None
    confidence_3: float | None
    height_error: float | None
    chamfer: float | None
    iou: float | None
    seconds: float | None
    mesh_seconds: float | None
    memory_mb: float | None = None


class ViewStore(TableStore[ViewRow]):
    """The output folder of one evaluation on objects; see `TableStore`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(folder, settings, ViewRow)

    def object_folder(self, index: int) -> Path:
        """Folder of the files of one object."""
        return self.folder / "objects" / f"{index:03d}"

    def _stem(self, row: ViewRow) -> Path:
        return self.object_folder(row.object) / row.method

    def find(self, index: int, method: str) -> ViewRow | None:
        """The finished row of a method for an object, if its views and its mesh still exist."""
        for row in self.rows:
            if (row.object, row.method) == (index, method):
                endings = [".png"] if row.chamfer is None else [".png", ".ply"]
                return row if all(self._stem(row).with_suffix(ending).exists() for ending in endings) else None
        return None

    def add(self, row: ViewRow, views: Tensor, mesh: trimesh.Trimesh | None) -> None:
        """Writes the views and the mesh of a method, and then the table with its row.

        Args:
            row: replaces an earlier row of the same object and method.
            views: (K, 3, S, S) in [-1, 1].
            mesh: mesh in the coordinates of the object, if there is one.
        """
        stem = self._stem(row)
        make_folder(stem.parent)
        write_image(stem.with_suffix(".png"), torch.cat(list(views), dim=-1))
        if mesh is not None:
            with atomic_path(stem.with_suffix(".ply")) as temporary:
                mesh.export(temporary)
        others = [r for r in self.rows if (r.object, r.method) != (row.object, row.method)]
        self.write_rows([*others, row])

    def load(self, row: ViewRow) -> tuple[Tensor, trimesh.Trimesh | None]:
        """Views (K, 3, S, S) and mesh of a finished row."""
        stem = self._stem(row)
        strip = read_image(stem.with_suffix(".png")).pixels
        views = torch.cat(strip.split(strip.shape[-2], dim=-1))
        return views, trimesh.load_mesh(stem.with_suffix(".ply")) if row.chamfer is not None else None
