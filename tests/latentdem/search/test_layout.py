from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from latentdem.search.layout import informative_window

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
