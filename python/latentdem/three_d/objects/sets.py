"""Sets of objects that an evaluation runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..synthetic.scenes import HELD_OUT, random_scene
from .base import MeasuredObject
from .files import find_objects, read_object

FIRST = HELD_OUT + 1000  # seed of object 0; the held-out objects before it were used during development
PROCEDURAL = 20  # objects that an evaluation makes unless a number is given


class ObjectSet(Protocol):
    """Objects with numbers from 0 and names. As text, it says which set it is."""

    def count(self, wanted: int | None) -> int:
        """Number of objects to use, if `wanted` are asked for, or the usual number for None."""
        ...

    def name(self, index: int) -> str:
        """Name of an object, different for each."""
        ...

    def has(self, index: int, name: str) -> bool:
        """Whether there is an object of this number, and it has this name."""
        ...

    def load(self, index: int) -> MeasuredObject:
        """An object, the same at every call.

        Raises:
            UserError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class ProceduralObjects:
    """Procedural objects that the embedded prior was not trained on."""

    def __str__(self) -> str:
        return "procedural"

    def count(self, wanted: int | None) -> int:
        return wanted or PROCEDURAL

    def name(self, index: int) -> str:
        return f"object {index + 1}"

    def has(self, index: int, name: str) -> bool:
        return name == self.name(index)

    def load(self, index: int) -> MeasuredObject:
        return random_scene(FIRST + index)


@dataclass(frozen=True)
class ObjectFiles:
    """Objects in files.

    Attributes:
        folder: their folder.
        names: paths in the folder.
        up: "z" or "y", the axis of the files that points up.
    """

    folder: Path
    names: tuple[str, ...]
    up: str

    @classmethod
    def of(cls, folder: Path, up: str = "z") -> ObjectFiles:
        """All objects in a folder, or a single file.

        Raises:
            UserError: there are none.
        """
        if folder.is_file():
            return cls(folder.parent, (folder.name,), up)
        return cls(folder, tuple(find_objects(folder)), up)

    def __str__(self) -> str:
        return f"{self.folder.resolve()}, {self.up} up"

    def count(self, wanted: int | None) -> int:
        return min(wanted or len(self.names), len(self.names))

    def name(self, index: int) -> str:
        return self.names[index]

    def has(self, index: int, name: str) -> bool:
        return self.names[index : index + 1] == (name,)

    def load(self, index: int) -> MeasuredObject:
        return read_object(self.folder / self.names[index], self.up)
