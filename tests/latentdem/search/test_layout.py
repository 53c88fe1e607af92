from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from latentdem.search.layout import GRID_MULTIPLE, TILE_SIZE, Layout, informative_window
from latentdem_ext.vae import tile_windows

Scene = Callable[..., Tensor]


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


@pytest.mark.parametrize(("height", "width"), [(683, 1024), (1024, 1024), (3000, 4000), (2000, 300)])
@pytest.mark.parametrize("kernel_size", [9, 31, 75])
def test_tiles_cover_a_large_photograph_with_little_more_than_its_pixels(
    height: int, width: int, kernel_size: int
) -> None:
    plan = Layout(height, width, kernel_size, circular=False)
    windows = list(tile_windows(height, width, plan.tile_size, plan.overlap))
    covered = torch.zeros(height, width)
    for rows, columns in windows:
        assert max(plan.frame_of_part(rows.stop - rows.start, columns.stop - columns.start).grid) <= (
            TILE_SIZE + GRID_MULTIPLE
        )
        covered[rows, columns] += 1
        for part, whole in ((rows, height), (columns, width)):
            size = part.stop - part.start
            fills_its_grid = plan.frame_of_part(size, size).grid[0] == size + kernel_size - 1
            assert fills_its_grid or size == whole
    assert covered.min() >= 1
    assert plan.grids[1] < 1.9 * height * width
