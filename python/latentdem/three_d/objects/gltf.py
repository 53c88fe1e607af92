"""What trimesh passes over in GLB files: compression, unreadable textures, and where textures lie."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UserError
from .base import Floats

COMPRESSIONS = (
    "KHR_draco_mesh_compression",
    "EXT_meshopt_compression",
    "KHR_meshopt_compression",
    "KHR_mesh_quantization",
)
_FILE, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")

Json = dict[str, Any]


@dataclass(frozen=True)
class Placement:
    """Where a texture lies, as the glTF extension KHR_texture_transform describes it.

    Attributes:
        offset: added last to the coordinates in the texture, right and down.
        rotation: angle in radians by which they are turned, counter-clockwise.
        scale: factors by which they are multiplied first.
    """

    offset: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)

    def __call__(self, places: Floats) -> Floats:
        """Coordinates (..., 2), right and up, of points whose coordinates in the file are `places`."""
        right, down = places[..., 0] * self.scale[0], (1 - places[..., 1]) * self.scale[1]
        cosine, sine = math.cos(self.rotation), math.sin(self.rotation)
        right, down = cosine * right + sine * down, cosine * down - sine * right
        return np.stack([right + self.offset[0], 1 - (down + self.offset[1])], -1)


def prepare_glb(data: bytes) -> tuple[bytes, dict[str, Placement]]:
    """The content of a GLB file for trimesh, and the placements of its textures.

    Args:
        data: content of the file.

    Returns:
        The content, in which materials are named by their numbers and the first texture coordinates are those
        of the base colour, and the placements by these names.

    Raises:
        UserError: the mesh is compressed, or a texture is missing or cannot be read.
        Exception: any other, if the file is damaged.
    """
    header, rest = _split(data)
    if compressed := [name for name in COMPRESSIONS if name in header.get("extensionsRequired", ())]:
        raise UserError(
            f"The mesh is compressed ({compressed[0]}), which cannot be read; save it uncompressed."
        )
    placements, sets = {}, {}
    for number, material in enumerate(header.get("materials", ())):
        reference = _base_colour(material)
        if reference is not None:
            _check_texture(header, rest, reference, material.get("name", number))
            transform = reference.get("extensions", {}).get("KHR_texture_transform", {})
            sets[number] = transform.get("texCoord", reference.get("texCoord", 0))
            known = {name: transform[name] for name in ("offset", "rotation", "scale") if name in transform}
            placements[str(number)] = Placement(**known)
        material["name"] = str(number)
    for mesh in header.get("meshes", ()):
        for part in mesh["primitives"]:
            if (chosen := sets.get(part.get("material"), 0)) and f"TEXCOORD_{chosen}" in part["attributes"]:
                part["attributes"]["TEXCOORD_0"] = part["attributes"][f"TEXCOORD_{chosen}"]
    return _joined(header, rest), placements


def _split(data: bytes) -> tuple[Json, bytes]:
    """The JSON of a GLB file, and the chunks after it."""
    if not data.startswith(struct.pack("<4sI", b"glTF", 2)):
        raise ValueError("it does not begin as a GLB file of version 2 does")
    length, _ = _CHUNK.unpack_from(data, _FILE.size)
    start = _FILE.size + _CHUNK.size
    return json.loads(data[start : start + length]), data[start + length :]


def _joined(header: Json, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    size = _FILE.size + _CHUNK.size + len(text) + len(rest)
    return _FILE.pack(b"glTF", 2, size) + _CHUNK.pack(len(text), b"JSON") + text + rest


def _base_colour(material: Json) -> Json | None:
    """The reference of a material to its texture, if there is one."""
    old = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    found: Json | None = old.get("diffuseTexture")
    return found or material.get("pbrMetallicRoughness", {}).get("baseColorTexture")


def _check_texture(header: Json, rest: bytes, reference: Json, name: object) -> None:
    """Makes sure that a texture can be decoded; files that it names are checked where they are read."""
    try:
        texture = header["textures"][reference["index"]]
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        image = header["images"][webp.get("source", texture.get("source"))]
        if "uri" not in image:
            view = header["bufferViews"][image["bufferView"]]
            start = _CHUNK.size + view.get("byteOffset", 0)
            Image.open(BytesIO(rest[start : start + view["byteLength"]])).load()
    except Exception as error:  # Pillow raises nearly anything
        raise UserError(
            f"The texture of material '{name}' is missing or cannot be read; save it as PNG or JPEG."
        ) from error
