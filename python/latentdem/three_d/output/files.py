"""Files that a reconstruction writes to a folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ...io.files import staging_folder, write_json
from ...io.images import write_image
from ...output.figures import save_figure
from ...output.report import backends, peak_memory, versions
from ..geometry.cameras import FIELD_OF_VIEW
from ..mesh.solid import Solid
from ..pictures import Picture
from .page import write_page
from .result import Reconstruction
from .video import write_video

FRAME = 150  # milliseconds per frame of the turntable
MIN_SIDE = 256  # smallest side of a frame in pixels; smaller views are enlarged


@dataclass(frozen=True)
class ViewOutputs:
    """Output paths of a reconstruction.

    Attributes:
        folder: an existing folder.
        views: number of new views.
        mesh, video, page: files of the mesh, of the turntable as a video, and of the page that shows
            everything; None if not requested.
    """

    folder: Path
    views: int
    mesh: Path | None = None
    video: Path | None = None
    page: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All output files: poses, report, figure, turntable, new views, mesh, video and page."""
        names = ["poses.json", "report.json", "figure.png", "turntable.gif"]
        files = [self.folder / name for name in [*names, *(_view_name(i) for i in range(self.views))]]
        return [*files, *(path for path in (self.mesh, self.video, self.page) if path is not None)]

    def write(self, result: Reconstruction, images: list[str]) -> None:
        """Writes all files but mesh and page, for images of these names; in the folder, all files or none.

        Raises:
            UserError: a file cannot be written.
        """
        with staging_folder(self.folder) as stage:
            write_json(stage / "poses.json", poses_of(result, images))
            write_json(stage / "report.json", report_of(result, images))
            save_figure(result.plot(), stage / "figure.png")
            for i, view in enumerate(result.views):
                write_image(stage / _view_name(i), view)
            frames = [_frame(stage / _view_name(i)) for i in range(len(result.views))]
            frames[0].save(
                stage / "turntable.gif", save_all=True, append_images=frames[1:], duration=FRAME, loop=0
            )
        if self.video is not None:
            write_video(frames, self.video, FRAME)

    def write_solid(self, solid: Solid, result: Reconstruction, images: list[str]) -> None:
        """Writes the mesh and the page, and the report again with the figures of the mesh.

        Raises:
            UserError: a file cannot be written.
        """
        from ..mesh.surface import write_mesh

        if self.mesh is not None:
            textured = solid.textured if self.mesh.suffix.lower() == ".glb" else None
            write_mesh(solid.mesh if textured is None else textured, self.mesh)
        if self.page is not None:
            write_page(result, solid, images, self.page)
        polar = round(math.degrees(solid.camera[0]), 1)
        mesh = {
            "file": None if self.mesh is None else str(self.mesh),
            "triangles": len(solid.mesh.faces),
            "polar_of_view_1": polar,
            "seconds": solid.seconds,
        }
        write_json(self.folder / "report.json", {**report_of(result, images), "mesh": mesh})


def poses_of(result: Reconstruction, images: list[str]) -> dict[str, Any]:
    """Poses relative to the first image as plain data, in degrees, with confidences and other likely poses."""
    return {
        "units": "degrees and, with a sphere of 0.6 around the object, distances; relative to image 1",
        "images": [
            {
                "image": name,
                **_pose(pose),
                "confidence": round(float(confidence), 4),
                "other_poses": [
                    {**_pose(other), "probability": round(probability, 4)}
                    for other, probability in result.other_poses(i)
                ],
            }
            for i, (name, pose, confidence) in enumerate(
                zip(images, result.poses, result.confidence, strict=True)
            )
        ],
        "views": [{"view": _view_name(i), **_pose(pose)} for i, pose in enumerate(result.targets)],
    }


def report_of(result: Reconstruction, images: list[str]) -> dict[str, Any]:
    """Settings, poses, versions and resources of the run, as plain data."""
    return {
        "settings": result.settings,
        "images": images,
        "background_removed": list(result.cut),
        "cutout": [{"how": picture.how, "sure": picture.sure} for picture in result.pictures],
        "field_of_view": [_field_of_view(picture) for picture in result.pictures],
        **poses_of(result, images),
        "versions": versions(),
        "backends": backends(),
        "seconds": result.seconds,
        "peak_memory": peak_memory(),
    }


def _field_of_view(picture: Picture) -> dict[str, Any]:
    """Degrees that the longer side of a picture shows, by its file, or that the prior assumes of a crop."""
    angle = picture.field_of_view
    if angle is None:
        return {"degrees": round(math.degrees(FIELD_OF_VIEW), 1), "from": "default, of the crop"}
    return {"degrees": round(math.degrees(angle), 1), "from": "EXIF FocalLengthIn35mmFilm"}


def _pose(pose: Tensor) -> dict[str, float]:
    polar, azimuth, radius = pose.tolist()
    return {
        "polar": round(math.degrees(polar), 3),
        "azimuth": round(math.degrees(azimuth), 3),
        "radius": round(radius, 4),
    }


def _view_name(index: int) -> str:
    return f"view_{index:03d}.png"


def _frame(path: Path) -> Image.Image:
    with Image.open(path) as image:
        factor = max(1, math.ceil(MIN_SIDE / image.width))
        return image.resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
