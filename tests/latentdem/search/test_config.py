from __future__ import annotations

import pytest

from latentdem.search.config import SearchConfig, coarsest_factor


@pytest.mark.parametrize(
    ("size", "side", "factor"),
    [
        (9, 512, 1),
        (20, 256, 1),
        (21, 256, 2),
        (21, 223, 1),  # the half would have 111 pixels
        (40, 128, 1),
        (41, 128, 2),
        (64, 256, 2),
        (64, 512, 4),
        (81, 256, 4),
        (129, 300, 4),
        (45, 46, 2),
        (45, 45, 1),  # 23 x 23 does not fit 22 pixels
    ],
)
def test_coarsest_factor(size: int, side: int, factor: int) -> None:
    assert coarsest_factor(size, side, SearchConfig()) == factor


def test_the_last_scale_ends_with_one_hypothesis() -> None:
    config = SearchConfig()
    scales = config.scales(512, 100)
    assert [factor for factor, _ in scales] == [4, 2, 1]
    assert [rounds[-1].keep for _, rounds in scales] == [2, 1, 1]
    assert scales[0][1] == config.coarse
    ((factor, rounds),) = config.scales(512, 9)
    assert factor == 1
    assert [each.keep for each in rounds] == [4, 1]
