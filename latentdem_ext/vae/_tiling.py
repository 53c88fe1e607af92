"""Overlapping tiles: one at a time in memory, their results blended linearly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .. import _checks

Window = tuple[slice, slice]


def tile_windows(height: int, width: int, tile: int | tuple[int, int], overlap: int) -> Iterator[Window]:
    """Windows of at most `tile` (height and width) that cover the image, row by row."""
    rows, columns = (tile, tile) if isinstance(tile, int) else tile
    for top in _starts(height, rows, overlap):
        for left in _starts(width, columns, overlap):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def blend_tiles(
    x: Tensor,
    function: Callable[[Tensor, Window], Tensor],
    tile: int | tuple[int, int],
    overlap: int,
    margin: int = 0,
    zeros: Callable[[tuple[int, ...], torch.dtype, torch.device], Tensor] | None = None,
) -> Tensor:
    """Applies `function` to overlapping tiles of `x` and blends the results linearly.

    Args:
        x: (B, C, H, W).
        function: maps a tile (B, C, h, w) and its window to (B, D, f h, f w), with the same f for all tiles.
        tile: largest side of a tile, or its largest height and width.
        overlap: by how much neighbouring tiles overlap at least, below `tile`.
        margin: how many pixels at a tile's sides within the image have no weight, below overlap / 2.
        zeros: makes the tensor of a shape, dtype and device that the result is added up in, such as one in a
            file where it is very large; None for `torch.zeros`.

    Returns:
        (B, D, f H, f W), of the dtype of the results.
    """
    height, width = x.shape[-2:]
    total: Tensor | None = None
    for window in tile_windows(height, width, tile, overlap):
        rows, columns = window
        result = function(x[..., rows, columns], window)
        factor = result.shape[-1] // (columns.stop - columns.start)
        if total is None:
            wide = torch.promote_types(result.dtype, torch.float32)
            shape = (*result.shape[:2], factor * height, factor * width)
            total = zeros(shape, wide, result.device) if zeros else result.new_zeros(shape, dtype=wide)
            grid = zip(*tile_windows(height, width, tile, overlap), strict=True)
            down, across = (
                _weights(lines, length, overlap, margin, factor, total)
                for lines, length in zip(grid, (height, width), strict=True)
            )
        top, left = factor * rows.start, factor * columns.start
        part = total[..., top : top + result.shape[-2], left : left + result.shape[-1]]
        part += down[rows.start][:, None] * across[columns.start] * result
    assert total is not None
    return total.to(result.dtype)


def tiled_decode(decode: Callable[[Tensor], Tensor], z: Tensor, *, tile: int = 64, overlap: int = 32) -> Tensor:
    """`decode(z)` in overlapping tiles, with a gradient in z: memory for one tile at a time, both ways.

    The tiles are blended linearly over half of the overlap; the quarter of it that is nearest to a tile's side
    has no weight, because the tile's border shows there. A decoder whose receptive field reaches no further
    than that quarter (in latents) gives the image and the gradient of the whole latent. Others differ from it,
    because group normalisation and attention see a tile, not the image. The gradient is that of the blended
    result.

    Args:
        decode: latents (B, c, h, w) to images (B, C, f h, f w): `lambda z: vae.decode(z).sample`.
        z: latents (B, c, H, W).
        tile: largest side of a tile, in latents.
        overlap: by how much neighbouring tiles overlap at least, in latents, below `tile`.

    Returns:
        Images (B, C, f H, f W).

    Raises:
        TypeError: `z` is not a floating-point tensor, or `tile` or `overlap` not an integer.
        ValueError: `z` has not four dimensions, or `overlap` is not between 0 and `tile` - 1.
    """
    _checks.tensor("z", z, _checks.REAL_DTYPES, 4)
    _checks.integer("tile", tile, 1)
    _checks.integer("overlap", overlap, 0, tile - 1)

    def decode_tile(part: Tensor, _: Window) -> Tensor:
        if torch.is_grad_enabled():
            return checkpoint(decode, part, use_reentrant=False)
        return decode(part)

    return blend_tiles(z, decode_tile, tile, overlap, overlap // 4)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of evenly spread tiles that cover `length` and overlap by at least `overlap`."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _weights(
    windows: Iterable[slice], length: int, overlap: int, margin: int, factor: int, like: Tensor
) -> dict[int, Tensor]:
    """Weights (n,) of the rows, or columns, of each window, by its first one; they add up to 1 everywhere."""
    ramps = {window.start: _ramp(window, length, overlap, margin, factor) for window in windows}
    total = torch.zeros(factor * length)
    for start, ramp in ramps.items():
        total[factor * start : factor * start + len(ramp)] += ramp
    return {
        start: (ramp / total[factor * start : factor * start + len(ramp)]).to(like)
        for start, ramp in ramps.items()
    }


def _ramp(window: slice, length: int, overlap: int, margin: int, factor: int) -> Tensor:
    """(n,) weights that rise from each side of a tile that is not the image's border, behind the margin."""
    size = factor * (window.stop - window.start)
    width = factor * max(overlap - 2 * margin, 1)
    position = torch.arange(size) + 0.5 - factor * margin
    up = position / width if window.start > 0 else torch.ones(size)
    down = (size - 2 * factor * margin - position) / width if window.stop < length else torch.ones(size)
    return torch.minimum(up, down).clamp(0.0, 1.0)
