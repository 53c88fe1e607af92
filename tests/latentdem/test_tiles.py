from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from latentdem.tiles import Window, informative_window, restore_in_tiles, tile_windows

Scene = Callable[..., Tensor]


@pytest.mark.parametrize(("height", "width"), [(20, 20), (64, 64), (65, 100), (200, 63)])
def test_tiles_cover_the_image_and_blend_to_it(scene: Scene, height: int, width: int) -> None:
    y = scene(height, width)
    sizes = []

    def identity(tile: Tensor, window: Window) -> Tensor:
        sizes.append(tile.shape[-2:])
        assert torch.equal(tile, y[..., window[0], window[1]])
        return tile

    torch.testing.assert_close(restore_in_tiles(y, identity, 64, 16), y)
    assert all(rows <= 64 and columns <= 64 for rows, columns in sizes)


def test_neighbouring_tiles_overlap() -> None:
    starts = sorted({rows.start for rows, _ in tile_windows(300, 64, 64, 16)})
    assert starts[0] == 0
    assert starts[-1] == 300 - 64
    assert all(b - a <= 64 - 16 for a, b in pairwise(starts))


def test_seams_are_blended(scene: Scene) -> None:
    """Tiles that disagree by a constant give a ramp, not a step."""
    y = torch.zeros(1, 3, 64, 112)
    restored = restore_in_tiles(y, lambda tile, window: tile + float(window[1].start > 0), 64, 16)
    assert restored.diff(dim=-1).max() < 0.1
    assert restored[..., 0].max() == 0
    assert restored[..., -1].min() == 1


def test_informative_window_prefers_edges_in_all_directions() -> None:
    y = torch.zeros(1, 3, 128, 192)
    y[..., :128, 100:] = torch.randn(1, 1, 1, 92)  # vertical stripes tell nothing about vertical blur
    y[..., 64:128, :64] = torch.nn.functional.interpolate(torch.randn(1, 1, 16, 16), scale_factor=4)
    rows, columns = informative_window(y.clamp(-0.9, 0.9), 64, 8)
    assert (rows.start, columns.start) == (64, 0)


def test_informative_window_avoids_clipped_pixels() -> None:
    texture = torch.nn.functional.interpolate(torch.randn(1, 1, 16, 16), scale_factor=4).expand(-1, 3, -1, -1)
    y = torch.cat([texture.clamp(-0.5, 0.5), (9 * texture).clamp(-1, 1)], dim=-1)
    assert informative_window(y, 64, 8)[1].start < 16


def test_small_image_is_its_own_window(scene: Scene) -> None:
    assert informative_window(scene(40, 60), 64, 8) == (slice(0, 40), slice(0, 60))
