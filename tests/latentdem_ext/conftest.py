"""The blur as a matrix written down entry by entry: shares nothing with the operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext


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


@pytest.fixture(params=["reference", "cpp"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each backend that works on tensors in CPU memory, requested for the time of the test."""
    state = ext.backends()[request.param]
    if not state.available:
        pytest.skip(state.reason)
    with ext.use_backend(request.param):
        yield request.param


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that PyTorch allocates without filling it holds NaN, so that what is not written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


def _assert_close_per_sample(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert found.is_contiguous()
    for one, other in zip(found.double(), expected.double(), strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


@pytest.fixture
def assert_close_per_sample() -> Callable[[Tensor, Tensor, float], None]:
    """(found, expected, tolerance): ||found - expected|| <= tolerance ||expected||, sample by sample."""
    return _assert_close_per_sample


def _on_every_number_of_threads(function: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(function())
    finally:
        torch.set_num_threads(before)
    return results


@pytest.fixture
def on_every_number_of_threads() -> Callable[[Callable[[], tuple[Tensor, ...]]], list[tuple[Tensor, ...]]]:
    """The results of a function with one, two and five threads."""
    return _on_every_number_of_threads
