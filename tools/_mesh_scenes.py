"""Training scenes made of meshes in files: other shapes, colours, prints and lights, one or two objects."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from _data import find_photographs
from PIL import Image
from scipy.spatial.transform import Rotation

from latentdem.three_d.objects.base import Floats
from latentdem.three_d.objects.files import find_objects, read_object
from latentdem.three_d.objects.mesh_object import MeshObject, MeshSurface, assembled
from latentdem.three_d.objects.texture import Texture
from latentdem.three_d.synthetic.render import Light

# Families of the scans with published figures (docs/results/views_scans.csv), which no training may use.
EVALUATED = (
    "ketchup",
    "frypan",
    "clamp",
    "apple",
    "scissors",
    "sugar_box",
    "tomato_soup_can",
    "mustard_bottle",
)
HELD_OUT_FAMILIES = 8  # further families of each kind that are never trained on
SETS = re.compile(r"^(libero-(hope|scanned|turbosquid)|urdf-models|ycb-sim|market)-")
VARIANTS = {
    "small",
    "medium",
    "large",
    "half",
    "raw",
    "cut",
    "open",
    "black",
    "blue",
    "red",
    "plastic",
    "chefmate",
}

TWO, TUMBLED, FLATTENED = 0.2, 0.15, 0.15  # shares of the scenes with another shape
RECOLOURED, PRINTED, OTHER_LIGHT = 0.5, 0.3, 0.5  # and with another look
STRETCH = 0.2  # standard deviation of the logarithm of the scale along each axis
GREY = np.ones(3) / 3**0.5  # axis of the colours around which hues turn
PRINT = 128  # smallest side in pixels of the part of a photograph that becomes a print


def family(name: str) -> str:
    """What an object is, whatever its source, number, size and colour: objects of one family are variants."""
    words = re.split(r"[-_\d]+", SETS.sub("", Path(name).stem))
    return "_".join(word for word in words if word and word not in VARIANTS)


@dataclass(frozen=True)
class Meshes:
    """Files of meshes by kind; every kind is drawn equally often.

    Attributes:
        folder: their folder.
        kinds: names of the files of each kind.
    """

    folder: Path
    kinds: tuple[tuple[str, ...], ...]

    @classmethod
    def split(cls, folder: Path) -> tuple[Meshes, Meshes]:
        """Meshes to train on, and those that are held out: whole families of each kind, by the hash of a name.

        Kinds are those of the column `kind` of `manifest.csv`, if there is one; else all are of one kind.
        """
        known, manifest = {}, folder / "manifest.csv"
        if manifest.exists():
            with manifest.open(newline="") as file:
                known = {row["name"]: row["kind"] for row in csv.DictReader(file)}
        kinds: dict[str, list[str]] = defaultdict(list)
        for name in find_objects(folder):
            kinds[known.get(Path(name).stem, "")].append(name)
        train, held_out = [], []
        for names in kinds.values():
            families = sorted({family(name) for name in names} - set(EVALUATED), key=_hash)
            kept = {*EVALUATED, *families[:HELD_OUT_FAMILIES]}
            train.append(tuple(name for name in names if family(name) not in kept))
            held_out.append(tuple(name for name in names if family(name) in kept))
        return cls(folder, tuple(filter(None, train))), cls(folder, tuple(filter(None, held_out)))

    @property
    def names(self) -> list[str]:
        """All files."""
        return [name for names in self.kinds for name in names]

    def load(self, name: str) -> MeshObject:
        return _read(self.folder / name)

    def draw(self, rng: np.random.Generator) -> MeshObject:
        """A random object as it is in its file."""
        names = self.kinds[rng.integers(len(self.kinds))]
        return self.load(names[rng.integers(len(names))])


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@lru_cache(maxsize=1000)
def _read(path: Path) -> MeshObject:
    return read_object(path)


@lru_cache
def _photographs(folder: Path) -> list[Path]:
    return find_photographs(folder)


def as_in_file(meshes: Meshes, index: int) -> tuple[MeshObject, Light]:
    """An object by its number, as it is in its file, in the usual light."""
    return meshes.load(meshes.names[index]), "object"


def random_mesh_scene(meshes: Meshes, photos: Path | None, seed: int) -> tuple[MeshObject, Light | Floats]:
    """The scene of a seed and the direction of its light, see `render`.

    Args:
        meshes: what the scenes are made of.
        photos: folder of photographs, which become prints on some objects.
        seed: any number.
    """
    rng = np.random.default_rng([seed, 1])  # other numbers than those of `random_scene`
    parts = _varied(meshes.draw(rng), photos, rng)
    if rng.uniform() < TWO:
        parts += _beside(parts, _varied(meshes.draw(rng), photos, rng), rng)
    if rng.uniform() < TUMBLED:
        parts = _moved(parts, Rotation.random(rng=rng).as_matrix())
    turn = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)).as_matrix()
    scene = assembled(_moved(parts, turn))
    if rng.uniform() >= OTHER_LIGHT:
        return scene, "object"
    height, angle = rng.uniform(0.1, 1.0), rng.uniform(0, 2 * np.pi)
    across = np.sqrt(1 - height**2)
    return scene, np.array([across * np.cos(angle), across * np.sin(angle), height])


def _varied(shown: MeshObject, photos: Path | None, rng: np.random.Generator) -> list[MeshSurface]:
    """The surfaces of an object: stretched, mirrored, and with another look."""
    parts, scale = list(shown.parts), np.exp(STRETCH * rng.normal(size=3))
    if rng.uniform() < FLATTENED:
        scale[rng.choice(3, p=(0.25, 0.25, 0.5))] *= rng.uniform(0.15, 0.5)
    if rng.uniform() < 0.5:
        scale[0] *= -1
    if photos is not None and rng.uniform() < PRINTED:
        texture, offsets = _print(photos, rng), rng.uniform(size=(6, 2))
        parts = [_printed(part, texture, offsets, rng.uniform(0.6, 1.5)) for part in parts]
    if rng.uniform() < RECOLOURED:
        look = _Colours.random(rng)
        parts = [look.of(part) for part in parts]
    return _moved(parts, np.diag(scale))


def _moved(parts: list[MeshSurface], linear: Floats, offset: Floats | float = 0.0) -> list[MeshSurface]:
    """Surfaces after p -> linear p + offset; a mirrored triangle gets the opposite order of corners."""
    order = slice(None, None, -1 if np.linalg.det(linear) < 0 else 1)

    def moved(part: MeshSurface) -> MeshSurface:
        changed: dict[str, Any] = {"triangles": (part.triangles @ linear.T + offset)[:, order]}
        for name in ("corner_colours", "places"):
            if (value := getattr(part, name)) is not None:
                changed[name] = value[:, order]
        return replace(part, **changed)

    return [moved(part) for part in parts]


def _beside(first: list[MeshSurface], second: list[MeshSurface], rng: np.random.Generator) -> list[MeshSurface]:
    """The second object, at most as large as it was, on the ground beside the first."""
    second = _moved(second, rng.uniform(0.5, 1.0) * np.eye(3))
    low, high = _bounds(first)
    own_low, own_high = _bounds(second)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle), 0])
    reach = ((high - low + own_high - own_low) / 2 * np.abs(direction)).sum() * rng.uniform(0.7, 1.0)
    offset = (low + high) / 2 + reach * direction - (own_low + own_high) / 2
    offset[2] = low[2] - own_low[2]
    return _moved(second, np.eye(3), offset)


def _bounds(parts: list[MeshSurface]) -> tuple[Floats, Floats]:
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in parts])
    return corners.min(0), corners.max(0)


def _print(photos: Path, rng: np.random.Generator) -> Texture:
    """A random part of a random photograph."""
    paths = _photographs(photos)
    picture = Image.open(paths[rng.integers(len(paths))]).convert("RGB")
    side = int(rng.integers(min(PRINT, *picture.size), min(picture.size) + 1))
    left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
    return Texture(picture.crop((left, top, left + side, top + side)))


def _printed(part: MeshSurface, texture: Texture, offsets: Floats, scale: float) -> MeshSurface:
    """A surface with a print, projected along the axis that a triangle faces most; `offsets` (6, 2) by side."""
    a, b, c = np.moveaxis(part.triangles, 1, 0)
    across = np.cross(b - a, c - a)
    axis = np.abs(across).argmax(1)
    side = 2 * axis + (np.take_along_axis(across, axis[:, None], 1)[:, 0] < 0)
    kept = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    places = scale * np.take_along_axis(part.triangles, kept[:, None].repeat(3, 1), 2) + offsets[side, None]
    return replace(
        part, colour=np.ones(3), corner_colours=None, texture=texture, places=places.astype(np.float32)
    )


@dataclass(frozen=True)
class _Colours:
    """Other colours y = min(1, gain T x^gamma) for colours x.

    Attributes:
        gamma: exponent.
        table: (3, 3) T, which turns hues and changes saturations.
        gain: exposure.
    """

    gamma: float
    table: Floats
    gain: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> _Colours:
        turn = Rotation.from_rotvec(GREY * rng.uniform(0, 2 * np.pi)).as_matrix()
        grey, saturation = np.outer(GREY, GREY), rng.uniform(0.4, 1.3)
        return cls(
            np.exp(rng.normal(0, 0.3)), turn @ (grey + saturation * (np.eye(3) - grey)), rng.uniform(0.6, 1.2)
        )

    def __call__(self, colours: Floats) -> Floats:
        return np.clip(self.gain * (colours**self.gamma @ self.table.T), 0, 1)

    def of(self, part: MeshSurface) -> MeshSurface:
        """The surface with these colours."""
        if part.texture is not None:
            picture = (255 * self(part.texture.levels[0] / 255)).round().astype(np.uint8)
            return replace(part, texture=Texture(Image.fromarray(picture)))
        if part.corner_colours is not None:
            return replace(part, corner_colours=self(part.corner_colours).astype(np.float32))
        return replace(part, colour=self(part.colour))
