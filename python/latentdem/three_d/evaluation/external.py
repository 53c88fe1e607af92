"""Programs of other people on the objects: views and meshes that they have left, or make on the same inputs."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from ...errors import UserError
from ...evaluation.datasets import natural_key
from ...evaluation.method_names import Spec, check_names
from ...evaluation.programs import Command, Usage
from ...evaluation.runner import MethodError
from ...io.files import make_folder
from ...io.images import read_image
from ..geometry.cameras import FIELD_OF_VIEW
from ..geometry.poses import ring
from ..synthetic.render import on_white, render_mesh
from .alignment import aligned
from .cases import KNOWN, ViewCase, ViewSettings, make_case
from .measures import compare_surface, view_quality
from .store import ViewRow

MESHES = ("mesh.ply", "mesh.obj", "mesh.glb")
_SMALL = 16  # pixels of views that are not used
PLACEHOLDERS = (*(f"view{i + 1}" for i in range(KNOWN)), "targets", "output")


@dataclass(frozen=True)
class PublishedViews:
    """Results in a folder: for object n a subfolder of three digits, from 000, see `_read`.

    Attributes:
        folder: the folder.
    """

    folder: Path

    def __str__(self) -> str:
        return f"published:{self.folder.resolve()}"


@dataclass(frozen=True)
class ViewProgram:
    """A program that is run once for each object, in the current folder.

    Attributes:
        command: its command line. {view1}, {view2} and {view3} are PNG files of the known views with an alpha
            channel, {targets} a JSON file with the new views, and {output} an empty folder for views/*.png, in
            the order of the targets, and mesh.ply, .obj or .glb; either is enough.
    """

    command: Command

    def __str__(self) -> str:
        return f"command:{self.command.template}"


@dataclass(frozen=True)
class ExternalViews:
    """A row for a program of other people.

    Attributes:
        name: name of the row.
        source: what is read or run.
    """

    name: str
    source: PublishedViews | ViewProgram

    @property
    def title(self) -> str:
        """Title in the table."""
        return self.name

    def run(
        self, index: int, case: ViewCase, settings: ViewSettings
    ) -> tuple[ViewRow, Tensor, trimesh.Trimesh | None]:
        """Figures of an object, its views (K, 3, S, S), and its mesh aligned with the object.

        Raises:
            MethodError: there is no result, or it cannot be used.
        """
        usage = None
        if isinstance(self.source, PublishedViews):
            views, mesh = _read(self.source.folder / f"{index:03d}", len(case.truth))
        else:
            with tempfile.TemporaryDirectory(prefix="latentdem-") as name:
                folder = Path(name)
                values = write_inputs(folder, case, settings)
                make_folder(folder / "output")
                usage = self.source.command.run({**values, "output": folder / "output"}, folder / "log.txt")
                views, mesh = _read(folder / "output", len(case.truth))
        return _measured(index, self.name, case, views, mesh, usage)


def external_views(specs: Sequence[Spec], known: Sequence[str], time_limit: float) -> tuple[ExternalViews, ...]:
    """Rows of programs of other people.

    Args:
        specs: what the user asks for.
        known: names that are taken.
        time_limit: seconds for a program and one object.

    Raises:
        UserError: a folder is missing, a command has a wrong placeholder, or a name is taken.
    """
    rows = []
    for spec in specs:
        source: PublishedViews | ViewProgram
        if spec.kind == "published":
            source = PublishedViews(spec.folder)
        else:
            source = ViewProgram(Command(spec.text, time_limit))
            source.command.check(PLACEHOLDERS, (("view1",), ("output",)))
        rows.append(ExternalViews(spec.name, source))
    check_names([*known, *(row.name for row in rows)])
    return tuple(rows)


def write_inputs(folder: Path, case: ViewCase, settings: ViewSettings) -> dict[str, Path]:
    """Writes the known views and the targets of an object, and returns their paths by placeholder.

    Raises:
        UserError: a file cannot be written.
    """
    make_folder(folder)
    paths = {f"view{i + 1}": folder / f"view{i + 1}.png" for i in range(KNOWN)}
    for path, picture in zip(paths.values(), case.files(KNOWN), strict=True):
        picture.save(path)
    azimuths = torch.rad2deg(ring(settings.views, (0.0,))[:, 1]) % 360
    targets = {
        "field of view": math.degrees(FIELD_OF_VIEW),
        "views": [{"polar": 0.0, "azimuth": round(float(azimuth), 3), "radius": 0.0} for azimuth in azimuths],
    }
    (folder / "targets.json").write_text(json.dumps(targets, indent=2) + "\n", encoding="utf-8")
    return {**paths, "targets": folder / "targets.json"}


def export_objects(out: Path, settings: ViewSettings, objects: int | None = None) -> list[str]:
    """Writes the inputs of the first objects to `out`/NNN, as programs get them.

    Args:
        out: folder.
        settings: see `ViewSettings`.
        objects: number of objects, see `ObjectSet.count`.

    Returns:
        Why objects were left out.

    Raises:
        UserError: a file cannot be written.
    """
    failures = []
    for index in range(settings.objects.count(objects)):
        try:
            case = make_case(index, settings, _SMALL)
        except UserError as error:
            failures.append(f"{settings.objects.name(index)}: {error}")
            continue
        write_inputs(out / f"{index:03d}", case, settings)
    return failures


def _read(folder: Path, count: int) -> tuple[Tensor | None, trimesh.Trimesh | None]:
    """Views (K, 3, H, W) in [-1, 1] on white from views/*.png, and the mesh, of one object.

    Raises:
        MethodError: the number of views is not `count`, or a file cannot be read.
    """
    views, mesh = None, None
    paths = sorted((folder / "views").glob("*.png"), key=lambda path: natural_key(path.name))
    if paths and len(paths) != count:
        raise MethodError(f"there are {len(paths)} views in {folder / 'views'}, not {count}.")
    try:
        if paths:
            views = torch.cat([_on_white(path) for path in paths])
    except (UserError, RuntimeError) as error:
        raise MethodError(f"the views in {folder / 'views'} cannot be used: {error}") from error
    file = next((folder / name for name in MESHES if (folder / name).is_file()), None)
    if file is not None:
        try:
            mesh = trimesh.load_mesh(file)
        except Exception as error:  # loaders of meshes raise nearly anything
            raise MethodError(f"the mesh {file.name} cannot be read: {error}") from error
    return views, mesh


def _on_white(path: Path) -> Tensor:
    """A picture (1, 3, H, W) in [-1, 1], on white where it is transparent."""
    file = read_image(path)
    pixels = file.pixels.expand(-1, 3, -1, -1)
    if file.alpha is None:
        return pixels
    alpha = torch.from_numpy(file.alpha / (2**file.bits - 1)).float()
    return alpha * pixels + (1 - alpha)


def _measured(
    index: int,
    name: str,
    case: ViewCase,
    views: Tensor | None,
    mesh: trimesh.Trimesh | None,
    usage: Usage | None,
) -> tuple[ViewRow, Tensor, trimesh.Trimesh | None]:
    size = case.truth.shape[-1]
    quality: tuple[float | None, float | None] = (None, None)
    chamfer, iou = None, None
    if views is not None:
        views = F.interpolate(views, (size, size), mode="bilinear", antialias=True)
        quality = view_quality(views, case.truth)
    if mesh is not None:
        mesh = aligned(mesh, case.scene)
        chamfer, iou = compare_surface(mesh, case.scene)
        if views is None:  # to look at; the colours of a mesh are not measured
            cameras = case.cameras[0] + ring(len(case.truth), (0.0,))
            views = torch.from_numpy(on_white(render_mesh(mesh, cameras, size))).movedim(-1, 1) / 127.5 - 1
    if views is None:
        raise MethodError(f"there are neither views/*.png nor one of {', '.join(MESHES)}.")
    row = ViewRow(
        object=index,
        name=case.name,
        method=name,
        psnr=quality[0],
        ssim=quality[1],
        pose_error=None,
        pose_error_3=None,
        nearest_error=None,
        nearest_error_3=None,
        confidence=None,
        confidence_3=None,
        height_error=None,
        chamfer=chamfer,
        iou=iou,
        seconds=usage.seconds if usage else None,
        mesh_seconds=None,
        memory_mb=usage.memory_mb if usage else None,
    )
    return row, views, mesh
