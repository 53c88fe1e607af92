"""Operations on the surroundings of every pixel, in time that hardly depends on their size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BAND = 96  # rows at a time


def by_rows(function: Callable[[slice], Tensor], height: int, margin: int) -> Tensor:
    """`function` of a picture's rows (..., H, W), in bands that fit a cache.

    Args:
        function: the result for a slice of rows, of which the `margin` first and last ones may be wrong.
        height: number of rows.
        margin: rows that a result depends on, above and below it.
    """
    result: Tensor | None = None
    for top, part in bands(function, height, margin):
        if result is None:
            result = part.new_empty(*part.shape[:-2], height, part.shape[-1])
        result[..., top : top + part.shape[-2], :] = part
    assert result is not None
    return result


def bands(function: Callable[[slice], Tensor], height: int, margin: int) -> Iterator[tuple[int, Tensor]]:
    """The parts of what `by_rows` gives, each with its first row."""
    for top in range(0, height, BAND):
        low, bottom = max(0, top - margin), min(top + BAND, height)
        part = function(slice(low, min(bottom + margin, height)))
        yield top, part[..., top - low : bottom - low, :]


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """(H, W) whose pixel (i, j) is (i + down, j + right), the edges replicated."""
    for axis, offset in ((0, down), (1, right)):
        if offset:
            kept = image.narrow(axis, max(offset, 0), image.shape[axis] - abs(offset))
            edge = kept.narrow(axis, -1 if offset > 0 else 0, 1)
            edges = [edge] * abs(offset)
            image = torch.cat([kept, *edges] if offset > 0 else [*edges, kept], axis)
    return image


def over_windows(
    values: Tensor, size: int, combine: Callable[[Tensor, Tensor], Tensor], outside: float
) -> Tensor:
    """`combine` of all values (H, W) in squares around each, by windows that double; `size` is odd.

    For the maximum, whose windows may overlap, and for the sum of windows that do not.
    """
    before = size // 2
    for axis in (0, 1):
        shape = list(values.shape)
        shape[axis] = before
        edge = values.new_full(shape, outside)
        part = torch.cat([edge, values, edge], axis)
        length, result, start = values.shape[axis], None, 0
        width = 1  # `part` holds windows of this width from each value on
        for bit in range(size.bit_length()):
            if size >> bit & 1:
                own = part.narrow(axis, start, length)
                result = own if result is None else combine(result, own)
                start += width
            if 2 * width <= size:
                count = part.shape[axis] - width
                part = combine(part.narrow(axis, 0, count), part.narrow(axis, width, count))
                width *= 2
        assert result is not None
        values = result
    return values


def highest(image: Tensor, size: int) -> Tensor:
    """Greatest values of (H, W) in squares."""
    return over_windows(image, size, torch.maximum, -torch.inf)


def sums_nearby(values: Tensor) -> Tensor:
    """Sums of (H, W) over squares of 31 x 31 pixels."""
    return over_windows(values, 31, torch.add, 0.0)


def dilated(region: Tensor, size: int) -> Tensor:
    """(H, W) bool, all pixels of squares around those of the region."""
    return over_windows(region, size, torch.logical_or, False)


def opened(region: Tensor) -> Tensor:
    """(H, W) bool, the 3 x 3 squares that lie in the region."""
    core = ~dilated(~region, 3)
    return dilated(core, 3)
