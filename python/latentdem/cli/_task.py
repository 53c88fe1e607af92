"""What a command does with photographs, and where their results go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._jobs import Job
from ._outputs import Existing

if TYPE_CHECKING:
    from torch import Tensor

    from ..io.images import ImageFile
    from ..restoration.settings import BoundaryChoice
    from ..solver.passes import Progress


@dataclass
class Outcome:
    """A restored photograph.

    Attributes:
        image: (1, C, H, W) in [-1, 1].
        like: the file whose depth, metadata and transparency the result gets.
        report: plain data for a JSON file.
        rows: names and values of a summary.
        extras: endings of the names of other files, and what writes each of them.
        explained: False where the result is probably wrong.
    """

    image: Tensor
    like: ImageFile
    report: dict[str, Any]
    rows: list[tuple[str, str]]
    extras: dict[str, Callable[[Path], object]]
    explained: bool = True


class Task(Protocol):
    """What a command does with photographs.

    Attributes:
        ending: of the names of results.
        batch_size: photographs of one group that are restored together.
        inputs: other files that are read.
        kept: where an interrupted run of one photograph is kept; None for nowhere.
    """

    ending: str
    batch_size: int
    inputs: Sequence[Path]
    kept: Path | None

    def prepare(self, count: int) -> None:
        """Loads what `count` photographs have in common."""
        ...

    def group(self, source: ImageFile) -> Any:
        """What photographs that can be restored together have in common; can be hashed."""
        ...

    def restore(self, sources: list[ImageFile], group: Any, progress: Progress) -> list[Outcome]:
        """Restores photographs of one group."""
        ...

    def complaint(self, unexplained: Sequence[Job], several: bool) -> tuple[str, int]:
        """What to say of results that are probably wrong, and the exit status."""
        ...


@dataclass(frozen=True)
class Outputs:
    """Where the results go, as the user asked.

    Attributes:
        out: file or folder; "-" for standard output; None for the place by default.
        suffix: of the results; None for that of each photograph.
        existing: what to do where a result exists.
        extras: folder for what was found, a figure and a report of each photograph; None for none of this.
        json: file for the reports; None for none.
    """

    out: str | None
    suffix: str | None
    existing: Existing
    extras: Path | None
    json: Path | None


def boundary_of(source: ImageFile, boundary: BoundaryChoice, batch_size: int) -> BoundaryChoice:
    """The boundary of a photograph: photographs are restored together only if they have the same."""
    from ..restoration.boundary import looks_circular

    if boundary == "auto" and batch_size > 1:
        return "circular" if looks_circular(source.pixels) else "valid"
    return boundary
