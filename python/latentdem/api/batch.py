"""Restores the photographs of a folder, in batches of one size, by one process or by several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..io.images import ImageFile, image_names, read_image
from ..output.files import Outputs
from ..output.result import Result
from ..restoration.boundary import looks_circular
from ..restoration.image import Progress

Boundary = Literal["auto", "circular", "valid"]
Restore = Callable[[Tensor, Boundary, Progress], Result]


@dataclass(frozen=True)
class Share:
    """Which part of the work falls to this process: every `count`-th file from number `index` on.

    It is fixed by the names alone, so that processes need not speak to each other. What one of them leaves
    undone is found missing, and done, by the next run.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Share:
        """That of RANK and WORLD_SIZE, as torchrun and accelerate set them; everything without them.

        Raises:
            UserError: they are not numbers with 0 <= RANK < WORLD_SIZE.
        """
        rank, size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise UserError(
                f"RANK is {rank} and WORLD_SIZE {size}, where a number below another is needed; "
                "set both as torchrun does, or none."
            )
        return cls(int(rank), int(size))

    def pick(self, names: list[str]) -> list[str]:
        """The part of `names` that is this process's own."""
        return names[self.index :: self.count]


@dataclass
class FolderReport:
    """What became of the files: names that were restored now or before, and why others were not.

    Attributes:
        restored: in this run.
        found: restored before.
        failures: reasons by name.
        unexplained: those of `restored` that are probably wrong, see `Result.explained`.
    """

    restored: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many files were dealt with."""
        return len(self.restored) + len(self.found) + len(self.failures)


@dataclass(frozen=True)
class _Waiting:
    name: str
    source: ImageFile
    outputs: Outputs


def restore_folder(
    folder: Path,
    out: Path,
    restore: Restore,
    *,
    batch_size: int = 1,
    boundary: Boundary = "auto",
    figure: bool = True,
    share: Share | None = None,
    progress: Callable[[float, int, str], None] | None = None,
) -> FolderReport:
    """Restores the images of `folder` whose outputs are not complete in `out`.

    Files that cannot be read or restored are reported and passed over.

    Args:
        folder: of blurred photographs.
        out: existing folder for the outputs.
        restore: restores (B, C, H, W) images in [-1, 1] of one size and boundary.
        batch_size: images of one size, colour and boundary that are restored together.
        boundary: "auto" decides for every image.
        figure: whether figures are drawn.
        share: part of the files to do; None for all.
        progress: called with the number of files done (fractions while some are in work), their total and the
            names in work.

    Raises:
        UserError: there are no images, or the outputs cannot be written.
    """
    names = image_names(folder)
    mine = (share or Share()).pick(names)
    targets = _targets(names)
    report, tell = FolderReport(), progress or (lambda done, total, names: None)
    waiting: dict[tuple[torch.Size, Boundary], list[_Waiting]] = {}

    def restore_waiting(key: tuple[torch.Size, Boundary]) -> None:
        batch, done = waiting.pop(key), report.done
        shown = ", ".join(each.name for each in batch)

        def within(stage: str, part: int, whole: int) -> None:
            tell(done + len(batch) * part / max(whole, 1), len(mine), shown)

        _restore_batch(batch, key[1], restore, within, report)

    for name in mine:
        tell(report.done, len(mine), name)
        try:
            source = read_image(folder / name)
        except UserError as error:
            report.failures[name] = str(error)
            continue
        outputs = Outputs(out / f"{targets[name]}{source.suffix}", figure)
        if outputs.complete:
            report.found.append(name)
            continue
        where: Boundary = boundary
        if boundary == "auto":
            where = "circular" if looks_circular(source.pixels) else "valid"
        key = (source.pixels.shape, where)
        waiting.setdefault(key, []).append(_Waiting(name, source, outputs))
        if len(waiting[key]) == batch_size:
            restore_waiting(key)
    for key in list(waiting):
        restore_waiting(key)
    tell(len(mine), len(mine), "done")
    return report


def _targets(names: list[str]) -> dict[str, str]:
    """Stems of the outputs; a.png and a.jpg keep apart by their suffix."""
    stems = Counter(Path(name).stem for name in names)
    return {
        name: f"{Path(name).stem if stems[Path(name).stem] == 1 else name.replace('.', '_')}_deblurred"
        for name in names
    }


def _restore_batch(
    batch: list[_Waiting], boundary: Boundary, restore: Restore, within: Progress, report: FolderReport
) -> None:
    try:
        result = restore(torch.cat([each.source.pixels for each in batch]), boundary, within)
    except UserError as error:
        report.failures |= {each.name: f"{each.source.path}: {error}" for each in batch}
        return
    for i, each in enumerate(batch):
        one = result[i]
        if not one.finite:
            report.failures[each.name] = f"{each.source.path}: the result has values that are not finite."
            continue
        each.outputs.write(one, each.source)
        report.restored.append(each.name)
        if not one.explained[0]:
            report.unexplained.append(each.name)
