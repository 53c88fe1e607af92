"""Which part of the photographs a process restores, where several share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ._jobs import Job


@dataclass(frozen=True)
class Share:
    """The part of the work of this process: every `count`-th file from number `index` on.

    It depends on the names alone, so that processes need not communicate. The next run does what one of them
    leaves undone.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Share:
        """The share given by RANK and WORLD_SIZE, as torchrun and accelerate set them; all files without them.

        Raises:
            UserError: only one of them is set, or they are not numbers with 0 <= RANK < WORLD_SIZE.
        """
        rank, size = environment.get("RANK"), environment.get("WORLD_SIZE")
        if rank is None and size in (None, "1"):
            return cls()
        if not (rank and size and rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise UserError(
                f"RANK is {rank or 'not set'} and WORLD_SIZE {size or 'not set'}, where a number below another "
                "is needed; set both as torchrun does, or neither."
            )
        return cls(int(rank), int(size))

    def pick(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that belong to this process."""
        return list(jobs[self.index :: self.count])

    def own(self, path: Path) -> Path:
        """The name of a file of which every process writes its own."""
        return path if self.count == 1 else path.with_name(f"{path.stem}_{self.index}{path.suffix}")
