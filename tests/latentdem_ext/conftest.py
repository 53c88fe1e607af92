"""The blur as a matrix written down entry by entry: shares nothing with the operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


class Native(NamedTuple):
    """A backend other than the reference, requested while the test runs, and the device of its tensors."""

    name: str
    device: str
    interpreted: bool  # by Triton on the CPU: for small tensors


_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(params=["cpp", pytest.param("triton", marks=() if _INTERPRETED else pytest.mark.gpu)])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Native]:
    """Each backend of the network operations in turn."""
    state = ext.backends()[request.param]
    if not state.available:
        pytest.skip(state.reason)
    triton = request.param == "triton"
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with ext.use_backend(request.param):
        yield Native(request.param, "cuda" if triton and not _INTERPRETED else "cpu", triton and _INTERPRETED)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that PyTorch allocates without filling it holds NaN, so that what is not written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(1).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    if expected.numel() == 0:
        return 0.0
    difference, scale = (t.reshape(t.shape[0], -1).norm(dim=1) for t in (actual - expected, expected))
    return float((difference / scale.clamp(min=1e-30)).max())


@pytest.fixture
def relative_error() -> Callable[[Tensor, Tensor], float]:
    """(actual, expected), both (B, ...) -> the largest ||actual - expected|| / ||expected|| of a sample."""
    return _relative_error


def _assert_close_per_sample(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.is_contiguous()
    assert _relative_error(actual, expected) <= tolerance


@pytest.fixture
def assert_close_per_sample() -> Callable[[Tensor, Tensor, float], None]:
    """(actual, expected, tolerance): ||actual - expected|| <= tolerance ||expected||, sample by sample."""
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
