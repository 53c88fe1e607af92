"""Restores the photographs of a folder, in batches of one size, in one process or several."""

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
from ..restoration.settings import BoundaryChoice
from ..solver.passes import Progress

Restore = Callable[[Tensor, BoundaryChoice, Progress, Tensor | None], Result]


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
        """The names that belong to this process."""
        return names[self.index :: self.count]


@dataclass
class FolderReport:
    """The names of the files that were restored, now or before, and the reasons why others were not.

    Attributes:
        restored: names restored in this run.
        found: names restored before.
        failures: reasons by name.
        unexplained: the names in `restored` that the result does not explain, see `Result.explained`.
    """

    restored: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of files that are finished, with or without success."""
        return len(self.restored) + len(self.found) + len(self.failures)


@dataclass(frozen=True)
class _Pending:
    name: str
    source: ImageFile
    outputs: Outputs


def restore_folder(
    folder: Path,
    out: Path,
    restore: Restore,
    *,
    batch_size: int = 1,
    boundary: BoundaryChoice = "auto",
    figure: bool = True,
    unexplained: Literal["input", "result"] = "result",
    share: Share | None = None,
    progress: Callable[[float, int, str], None] | None = None,
) -> FolderReport:
    """Restores the images of `folder` whose outputs are not complete in `out`.

    Files that cannot be read or restored are reported and skipped.

    Args:
        folder: of blurred photographs.
        out: existing folder for the outputs.
        restore: restores (B, C, H, W) images in [-1, 1] of one size and boundary, given their mask too, see
            `latentdem.deblur`.
        batch_size: images of one size, colour and boundary that are restored together.
        boundary: "auto" decides for every image.
        figure: whether figures are drawn.
        unexplained: what is written where no kernel found explains an image, see `Result.or_input`.
        share: the part of the files to restore; None for all.
        progress: called with the number of finished files (fractions while some are being restored), their
            total, and the names of those being restored.

    Raises:
        UserError: there are no images, or the outputs cannot be written.
    """
    names = image_names(folder)
    own = (share or Share()).pick(names)
    targets = _targets(names)
    report, notify = FolderReport(), progress or (lambda done, total, names: None)
    pending: dict[tuple[torch.Size, BoundaryChoice], list[_Pending]] = {}

    def restore_pending(key: tuple[torch.Size, BoundaryChoice]) -> None:
        batch, done = pending.pop(key), report.done
        shown = ", ".join(item.name for item in batch)

        def within(stage: str, part: int, whole: int) -> None:
            notify(done + len(batch) * part / max(whole, 1), len(own), shown)

        _restore_batch(batch, key[1], restore, within, report, unexplained)

    for name in own:
        notify(report.done, len(own), name)
        try:
            source = read_image(folder / name)
        except UserError as error:
            report.failures[name] = str(error)
            continue
        outputs = Outputs(out / f"{targets[name]}{source.suffix}", figure)
        if outputs.complete:
            report.found.append(name)
            continue
        choice: BoundaryChoice = boundary
        if boundary == "auto":
            choice = "circular" if looks_circular(source.pixels) else "valid"
        key = (source.pixels.shape, choice)
        pending.setdefault(key, []).append(_Pending(name, source, outputs))
        if len(pending[key]) == batch_size:
            restore_pending(key)
    for key in list(pending):
        restore_pending(key)
    notify(len(own), len(own), "done")
    return report


def _targets(names: list[str]) -> dict[str, str]:
    """Stems of the outputs; the suffix distinguishes a.png and a.jpg."""
    stems = Counter(Path(name).stem for name in names)
    return {
        name: f"{Path(name).stem if stems[Path(name).stem] == 1 else name.replace('.', '_')}_deblurred"
        for name in names
    }


def _restore_batch(
    batch: list[_Pending],
    boundary: BoundaryChoice,
    restore: Restore,
    within: Progress,
    report: FolderReport,
    unexplained: Literal["input", "result"],
) -> None:
    try:
        pixels = torch.cat([item.source.pixels for item in batch])
        masks = [item.source.opaque for item in batch]
        mask = None
        if any(one is not None for one in masks):
            mask = torch.cat([torch.ones_like(pixels[:1, :1]) if one is None else one for one in masks])
        result = restore(pixels, boundary, within, mask)
    except UserError as error:
        report.failures |= {item.name: f"{item.source.path}: {error}" for item in batch}
        return
    for i, item in enumerate(batch):
        one = result[i]
        if not one.finite:
            report.failures[item.name] = f"{item.source.path}: the result has values that are not finite."
            continue
        item.outputs.write(one.or_input() if unexplained == "input" else one, item.source)
        report.restored.append(item.name)
        if not one.explained[0]:
            report.unexplained.append(item.name)
