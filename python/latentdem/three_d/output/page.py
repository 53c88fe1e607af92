"""A reconstruction as one HTML file with a viewer of its mesh, cameras and pictures."""

from __future__ import annotations

import base64
import html
import io
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from ...errors import UserError
from ...io.files import atomic_path
from ..geometry.cameras import FIELD_OF_VIEW
from ..mesh.solid import Solid
from .figure import angles
from .result import Reconstruction

SUFFIXES = (".html", ".htm")
SCRIPTS = ("geometry", "drawing", "page")  # in this order one script


def check_page_name(path: Path) -> None:
    """Makes sure that a page can be called this.

    Raises:
        UserError: it has another ending.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"A page is written as .html, not '{path.suffix}'; rename {path.name}.")


def write_page(result: Reconstruction, solid: Solid, images: list[str], path: Path) -> None:
    """Writes a page that shows a reconstruction in any browser with WebGL 2, also without a network.

    Everything is in the one file, about half a megabyte with two pictures.

    Args:
        result: poses and views.
        solid: the mesh.
        images: names of the pictures.
        path: file of the page, written atomically.

    Raises:
        UserError: the file cannot be written.
    """
    text = page_of(result, solid, images)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_of(result: Reconstruction, solid: Solid, images: list[str]) -> str:
    """The page as text; see `write_page`."""
    viewer = files(__package__) / "viewer"
    template, style, *scripts = (
        (viewer / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", *(f"{script}.js" for script in SCRIPTS))
    )
    others = len(images) - 1
    title = Path(images[0]).name + (f" and {others} more" if others else "")
    # "<" could end the script that the data are in.
    data = json.dumps(_data(result, solid, images)).replace("<", "\\u003c")
    script = "\n".join(scripts)
    return Template(template).substitute(title=html.escape(title), style=style, script=script, data=data)


def _data(result: Reconstruction, solid: Solid, images: list[str]) -> dict[str, Any]:
    """What the script of the page shows; angles are in radians, and arrays in base64."""
    from ..mesh.surface import mask_on_white

    views: list[dict[str, Any]] = []
    shown = [(picture.pixels[0], picture.mask, picture.cut) for picture in result.pictures]
    shown += [(view, None, True) for view in result.views]
    poses = [*result.poses, *result.targets]
    for i, ((pixels, mask, cut), pose) in enumerate(zip(shown, poses, strict=True)):
        polar, azimuth, distance = (solid.camera + pose).tolist()
        if cut and mask is None:
            mask = mask_on_white(pixels[None])[0]
        around, above = angles(pose)
        view = {"polar": polar, "azimuth": azimuth, "distance": distance}
        view |= {"caption": f"{around}, {above}", "text": f"azimuth {around}, elevation {above}"}
        if i < len(images):
            sure = f"confidence {float(result.confidence[i]):.2f}" if i else "the reference"
            view |= {"kind": "picture", "name": Path(images[i]).name}
            view |= {"caption": f"{view['caption']}, {sure}" if i else sure, "text": f"{view['text']}, {sure}"}
        else:
            view |= {"kind": "view", "name": f"new view {i - len(images) + 1}"}
        views.append({**view, "picture": _picture(pixels, mask)})
    pictures = "1 picture" if len(images) == 1 else f"{len(images)} pictures"
    return {
        "about": f"{pictures}, {len(result.views)} new views, {len(solid.mesh.faces):,} triangles",
        "field_of_view": FIELD_OF_VIEW,
        "mesh": _mesh(solid),
        "views": views,
    }


def _mesh(solid: Solid) -> dict[str, Any]:
    """The mesh with its texture, whose first row is at 0, or with colours at its vertices if it has none."""
    mesh = solid.mesh if solid.textured is None else solid.textured
    visual: Any = mesh.visual
    if solid.textured is None:
        look = {"colours": _base64(visual.vertex_colors[:, :3], np.uint8)}
    else:
        look = {
            "spots": _base64(visual.uv * [1, -1] + [0, 1], np.float32),
            "texture": _url(visual.material.baseColorTexture),
        }
    return {
        "count": len(mesh.vertices),
        "points": _base64(mesh.vertices, np.float32),
        "normals": _base64(mesh.vertex_normals, np.float32),
        "faces": _base64(mesh.faces, np.uint32),
        **look,
    }


def _picture(pixels: Tensor, mask: Tensor | None) -> str:
    """A view (3, S, S) in [-1, 1] on white as a PNG in a URL, transparent outside of its mask (S, S)."""
    colours = ((pixels + 1) / 2).clamp(0, 1).movedim(0, -1).numpy()
    opacity = np.ones(colours.shape[:2], np.float32) if mask is None else mask.numpy()
    share = opacity[..., None]
    # A pixel at the edge is a mixture of the object's colour and white, of which the white is taken out.
    colours = np.where(share > 0, 1 - (1 - colours) / np.maximum(share, 1e-3), 1).clip(0, 1)
    layers = (255 * np.concatenate([colours, share], -1)).round().astype(np.uint8)
    return _url(Image.fromarray(layers, "RGBA"))


def _url(picture: Image.Image) -> str:
    """A picture as a PNG in a URL."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _base64(values: ArrayLike, kind: type[np.generic]) -> str:
    """Values in the little-endian order that browsers have."""
    flat = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(flat.tobytes()).decode()
