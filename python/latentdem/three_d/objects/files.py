"""Objects in files: GLB, OBJ and PLY, in any number of folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from trimesh.resolvers import FilePathResolver

from ...errors import UserError
from ...evaluation.datasets import natural_key
from .base import Floats
from .gltf import Placement, prepare_glb
from .mesh_object import MeshObject, MeshSurface, assembled
from .texture import Texture

ENDINGS = (".glb", ".obj", ".ply")
MOST_TRIANGLES = 2_000_000
MOST_BYTES = 2**30
TEXTURES = ("../materials/textures", "../textures")  # beside the folder of the mesh, in common sets of scans
GREY = 0.7  # colour of a surface for which the file has none
DISPLAY = 1 / 2.2  # exponent from the linear colour of a glTF material to that of a picture
Y_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def find_objects(folder: Path) -> list[str]:
    """Names of the files of objects in a folder and the folders in it, in natural order.

    Raises:
        UserError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}' of objects; check the path.")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and not path.is_dir()]
    shown = (path.relative_to(folder).as_posix() for path in paths if not path.name.startswith("."))
    names = sorted(shown, key=natural_key)
    if not names:
        raise UserError(f"There are no objects (*{', *'.join(ENDINGS)}) in '{folder}'.")
    return names


def read_object(path: Path, up: str = "z") -> MeshObject:
    """The object in a file, centred and scaled as procedural objects are.

    Args:
        path: a GLB, OBJ or PLY file. Its base colours are used: the product of the texture, the colour of the
            material, and the colours of vertices or faces; transparency and other properties of materials are
            ignored.
        up: "z" or "y", the axis of the file that points up.

    Raises:
        UserError: the file cannot be read, is too large or compressed, a material or texture that it names is
            missing, or it has no faces, too many, or none with an area.
    """
    files, kind = _Resolver(path), path.suffix.lower()[1:]
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise UserError(
                f"The file has {size / 2**20:,.0f} MiB; reduce it to {MOST_BYTES / 2**20:,.0f} or fewer."
            )
        data, placements = path.read_bytes(), dict[str, Placement]()
        if kind == "glb":
            data, placements = prepare_glb(data)
        with _quiet_trimesh():
            scene = trimesh.load_scene(BytesIO(data), file_type=kind, resolver=files, process=False)
        parts = [_surface(mesh, place, placements) for mesh, place in _placed(scene)]
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"The mesh cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # loaders of meshes raise nearly anything
        reason = str(error).rstrip(".!") or type(error).__name__
        raise UserError(
            f"The mesh cannot be read; it is damaged, or not in the format {kind.upper()} ({reason})."
        ) from error
    if files.missing:
        raise UserError(f"The mesh needs the file {files.missing[0]}, which is missing or cannot be read.")
    if up == "y":
        parts = [_turned(part) for part in parts]
    return assembled(parts)


@contextmanager
def _quiet_trimesh() -> Iterator[None]:
    """Keeps trimesh from printing tracebacks of what is reported as an error anyway."""
    log = logging.getLogger("trimesh")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


class _Resolver(FilePathResolver):
    """Finds the materials and textures that a file names, and keeps the names of those that it does not find.

    trimesh goes on without them, and the object would be grey.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.missing: list[str] = []

    def get(self, name: str) -> bytes:
        name = name.strip().replace("\\", "/")
        folder, last = Path(self.parent), name.rpartition("/")[2]
        for candidate in (folder / name, folder / last, *(folder / other / last for other in TEXTURES)):
            if candidate.is_file():
                data = candidate.read_bytes()
                if candidate.suffix.lower() != ".mtl":
                    self._check(name, data)
                return data
        self.missing.append(name)
        raise FileNotFoundError(name)

    def _check(self, name: str, data: bytes) -> None:
        try:
            Image.open(BytesIO(data)).load()
        except Exception:  # Pillow raises nearly anything
            self.missing.append(name)
            raise


def _placed(scene: trimesh.Scene) -> Iterator[tuple[trimesh.Trimesh, Floats]]:
    """Every mesh of a scene, as often as it occurs, with its transformation (4, 4).

    Raises:
        UserError: they have too many triangles together.
    """
    count = 0
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        if isinstance(mesh := scene.geometry[name], trimesh.Trimesh) and len(mesh.faces):
            count += len(mesh.faces)
            if count > MOST_TRIANGLES:
                raise UserError(f"The mesh has more than {MOST_TRIANGLES:,} triangles; reduce it to fewer.")
            yield mesh, transform


def _surface(mesh: trimesh.Trimesh, transform: Floats, placements: Mapping[str, Placement]) -> MeshSurface:
    """The triangles of a mesh at their place in the scene; normals are still missing."""
    triangles = mesh.vertices[mesh.faces] @ transform[:3, :3].T + transform[:3, 3]
    own: dict[str, Any] = _look(mesh, placements)
    if np.linalg.det(transform[:3, :3]) < 0:  # a mirrored copy
        triangles = triangles[:, ::-1]
        own |= {name: own[name][:, ::-1] for name in ("corner_colours", "places") if name in own}
    return MeshSurface(triangles, np.zeros_like(triangles), **own)


def _look(mesh: trimesh.Trimesh, placements: Mapping[str, Placement]) -> dict[str, Any]:
    """Colours and texture of a mesh, as arguments of `MeshSurface`."""
    visual: Any = mesh.visual
    if visual.kind in ("vertex", "face"):
        if visual.kind == "vertex":
            colours = visual.vertex_colors[mesh.faces, :3]
        else:
            colours = np.repeat(visual.face_colors[:, None, :3], 3, axis=1)
        return {"colour": np.ones(3), "corner_colours": (colours / 255).astype(np.float32)}
    if visual.kind != "texture" or visual.material is None:
        return {"colour": np.full(3, GREY)}
    material = visual.material
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        picture, factor = material.baseColorTexture, material.baseColorFactor
        colour = np.ones(3) if factor is None else (np.asarray(factor[:3]) / 255) ** DISPLAY
    else:
        picture = material.image
        # Exporters leave the colour of a material that has a texture at any value.
        colour = np.ones(3) if picture is not None else np.asarray(material.diffuse[:3]) / 255
    look: dict[str, Any] = {"colour": colour}
    if (colours := visual.vertex_attributes.get("color")) is not None:
        largest = np.iinfo(colours.dtype).max if colours.dtype.kind in "iu" else 1
        look["corner_colours"] = (colours[mesh.faces, :3] / largest).astype(np.float32)
    if picture is not None and visual.uv is not None:
        places = placements.get(material.name, Placement())(visual.uv)
        look |= {"texture": Texture(picture), "places": places[mesh.faces].astype(np.float32)}
    return look


def _turned(part: MeshSurface) -> MeshSurface:
    """A surface of a file whose y axis points up."""
    return MeshSurface(**{**vars(part), "triangles": part.triangles @ Y_UP.T})
