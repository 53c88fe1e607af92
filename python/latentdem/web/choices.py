"""What the page lets its user choose for a restoration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError

if TYPE_CHECKING:
    from ..restoration.config import Quality

_LEAST_REGION = 32  # pixels a side, below which no kernel can be told from the picture


@dataclass(frozen=True)
class Region:
    """A part of a photograph in pixels, from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    def rows_and_columns(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of a photograph of this size, cut to it.

        Raises:
            UserError: too little of it lies in the photograph.
        """
        rows = slice(max(self.top, 0), min(self.top + self.height, height))
        columns = slice(max(self.left, 0), min(self.left + self.width, width))
        if min(rows.stop - rows.start, columns.stop - columns.start) < _LEAST_REGION:
            raise UserError(
                f"The region is too small to find a kernel in; draw one of at least {_LEAST_REGION} x "
                f"{_LEAST_REGION} pixels inside the photograph, or none."
            )
        return rows, columns


@dataclass(frozen=True)
class Choices:
    """What was chosen; see `Settings` for the first three.

    Attributes:
        kernel_size: K; None finds it.
        seed: of all randomness.
        quality: how much time the restoration takes once the kernel is known.
        region: part of the photograph that the kernel is found in; None for all of it.
        uncertainty: whether the standard deviation of each pixel's error is wanted, too.
    """

    kernel_size: int | None = None
    seed: int = 0
    quality: Quality = "auto"
    region: Region | None = None
    uncertainty: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Choices:
        """The choices in a query such as kernel_size=31&seed=1&quality=fast&region=0,0,128,128.

        Raises:
            UserError: a value is no number, or negative.
        """
        size, region, quality = (query.get(name, "") for name in ("kernel_size", "region", "quality"))
        numbers = [_whole(part, "region") for part in region.split(",")] if region else []
        if len(numbers) not in (0, 4):
            raise UserError(f"A region is left, top, width and height, not '{region}'.")
        return cls(
            None if size in ("", "auto") else _whole(size, "kernel size"),
            _whole(query.get("seed") or "0", "seed"),
            quality or "auto",  # type: ignore[arg-type]  # `Settings` refuses unknown names
            Region(*numbers) if numbers else None,
            query.get("uncertainty") == "1",
        )


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UserError(f"The {name} is a whole number from 0 up, not '{text[:40]}'.")
    return int(text)
