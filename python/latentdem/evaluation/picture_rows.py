"""The table of an evaluation on real pictures: its rows and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

CLEAR_GAIN = 3.0  # dB over the input that count as a success


@dataclass(frozen=True)
class PictureRow:
    """Figures of one picture; None where there is no true image or kernel, or where the method does not tell.

    PSNR (dB) and SSIM are those at the best shift, of the input too; `gain` is the difference of the PSNRs, and
    `shift_down` and `shift_right` are the pixels by which the result was moved. `mnc_rotated` is that of the
    kernel turned by 180 degrees, which is larger than `mnc` where the kernel was found the wrong way round.
    `noise_sigma` (the one used) and `residual` are in units of [-1, 1]; `explained` is that of `Result`, and
    `unexplained`, `coverage` and `lead` what it follows from. `cpu_seconds` counts all threads of the process,
    `memory_mb` is the resident memory of a program that ran by itself.
    """

    index: int
    image: str
    kernel_size: int | None
    noise_sigma: float | None
    residual: float | None
    explained: bool | None
    seconds: float | None
    cpu_seconds: float | None
    memory_mb: float | None = None
    unexplained: float | None = None
    coverage: float | None = None
    lead: float | None = None
    psnr_input: float | None = None
    psnr: float | None = None
    gain: float | None = None
    ssim_input: float | None = None
    ssim: float | None = None
    shift_down: float | None = None
    shift_right: float | None = None
    mnc: float | None = None
    mnc_rotated: float | None = None


AVERAGED = tuple(
    field.name
    for field in fields(PictureRow)
    if field.name not in ("index", "image", "shift_down", "shift_right", "explained", "kernel_size")
)


@dataclass(frozen=True)
class PictureSummary:
    """An evaluation in a few numbers.

    Attributes:
        pictures: number of rows.
        mean: means of the figures that were measured.
        worst_psnr, worst_gain: smallest ones, with the name of the picture.
        better: share of pictures better than their input by 3 dB.
        worse: share of pictures worse than their input.
        confusion: number of pictures by "explained" or "unexplained" and "worse" or "not worse" than the input.
        explained: number of pictures whose result explains the input, None where the method does not say.
    """

    pictures: int
    mean: dict[str, float]
    worst_psnr: tuple[str, float] | None
    worst_gain: tuple[str, float] | None
    better: float | None
    worse: float | None
    confusion: dict[str, dict[str, int]] | None
    explained: int | None

    @classmethod
    def of(cls, rows: Sequence[PictureRow]) -> PictureSummary:
        """The summary of at least one row."""
        columns = {name: [v for row in rows if (v := getattr(row, name)) is not None] for name in AVERAGED}
        mean = {name: float(np.mean(values)) for name, values in columns.items() if values}
        says = [row.explained for row in rows if row.explained is not None]
        explained = sum(says) if says else None
        scored = [(row, row.psnr, row.gain) for row in rows if row.psnr is not None and row.gain is not None]
        if not scored:
            return cls(len(rows), mean, None, None, None, None, None, explained)
        confusion = {
            name: {
                "worse": sum(row.explained is value and gain < 0 for row, _, gain in scored),
                "not worse": sum(row.explained is value and gain >= 0 for row, _, gain in scored),
            }
            for name, value in (("explained", True), ("unexplained", False))
        }
        return cls(
            len(rows),
            mean,
            min(((row.image, psnr) for row, psnr, _ in scored), key=lambda pair: pair[1]),
            min(((row.image, gain) for row, _, gain in scored), key=lambda pair: pair[1]),
            float(np.mean([gain >= CLEAR_GAIN for _, _, gain in scored])),
            float(np.mean([gain < 0 for _, _, gain in scored])),
            confusion,
            explained,
        )

    def sentences(self) -> list[str]:
        """The summary as text, a statement each."""
        if self.worst_psnr is None or self.worst_gain is None or self.confusion is None:
            return [] if self.explained is None else [f"Explained: {self.explained} of {self.pictures}."]
        lines = [
            f"Worst: {self.worst_psnr[1]:.2f} dB ({self.worst_psnr[0]}); "
            f"worst gain {self.worst_gain[1]:+.2f} dB ({self.worst_gain[0]}).",
            f"Better than the input by {CLEAR_GAIN:g} dB: {self.better:.0%}; worse than it: {self.worse:.0%}.",
        ]
        if self.explained is not None:
            explained, unexplained = self.confusion["explained"], self.confusion["unexplained"]
            lines.append(
                f"Explained: {explained['not worse']} not worse than the input, {explained['worse']} worse. "
                f"Not explained: {unexplained['not worse']} not worse, {unexplained['worse']} worse."
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
