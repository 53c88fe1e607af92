"""The blur as a matrix written down entry by entry: shares nothing with the operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


def _blur_matrix(kernel: Tensor, height: int, width: int) -> Tensor:
    size = kernel.shape[-1]
    matrix = torch.zeros(height, width, height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            for a in range(size):
                for b in range(size):
                    row, column = (i - (a - size // 2)) % height, (j - (b - size // 2)) % width
                    matrix[i, j, row, column] += kernel[a, b]
    return matrix.view(height * width, height * width)


@pytest.fixture
def blur_matrix() -> Callable[[Tensor, int, int], Tensor]:
    """(kernel (K, K), H, W) -> (H W, H W): the matrix of the circular blur of a flattened image."""
    return _blur_matrix
