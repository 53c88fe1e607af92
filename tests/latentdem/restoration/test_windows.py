"""Windows of pixels against pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from latentdem.restoration.windows import BAND, by_rows, dilated, highest, opened, shifted, sums_nearby


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(41, 53, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [3, 5, 7, 9, 17])
def test_highest_is_max_pooling(picture: torch.Tensor, size: int) -> None:
    assert torch.equal(highest(picture, size), F.max_pool2d(picture[None], size, 1, size // 2)[0])


def test_sums_are_those_of_squares(picture: torch.Tensor) -> None:
    square = torch.ones(1, 1, 31, 31, dtype=torch.float64)
    expected = F.conv2d(picture.double()[None, None], square, padding=15)[0, 0]
    torch.testing.assert_close(sums_nearby(picture.double()), expected)


def test_regions_grow_and_lose_what_is_narrow(picture: torch.Tensor) -> None:
    region = picture > 0.7
    assert torch.equal(dilated(region, 5), F.max_pool2d(region[None].float(), 5, 1, 2)[0] > 0)
    block = torch.zeros(9, 9, dtype=torch.bool)
    block[2:5, 3:6] = True
    line = block.clone()
    line[7] = True
    assert torch.equal(opened(line), block)


@pytest.mark.parametrize(("down", "right"), [(0, 2), (-1, 0), (1, -1), (2, 1)])
def test_shifts_repeat_the_edges(picture: torch.Tensor, down: int, right: int) -> None:
    rows = (torch.arange(41) + down).clamp(0, 40)
    columns = (torch.arange(53) + right).clamp(0, 52)
    assert torch.equal(shifted(picture, down, right), picture[rows][:, columns])


def test_bands_make_the_whole() -> None:
    picture = torch.rand(2 * BAND + 5, 7, generator=torch.Generator().manual_seed(1))
    whole = highest(picture, 9)
    assert torch.equal(by_rows(lambda rows: highest(picture[rows], 9), len(picture), 4), whole)
