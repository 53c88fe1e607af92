"""Shared by all benchmarks: one row of the table, and the check of its result."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext

from .rows import DEVICE

Outputs = Tensor | Sequence[Tensor]


def _tensors(outputs: Outputs) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def device_name() -> str:
    """The processor or GPU that is measured, and the threads a processor may use."""
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name(DEVICE)
    models = [
        line.partition(":")[2].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ())
        if line.startswith("model name")
    ]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


class DeviceClock:
    """Seconds on the clock of the GPU: the difference of two readings is the time between two CUDA events.

    The start is renewed now and then, because CUDA gives times as float32 milliseconds.
    """

    def __init__(self) -> None:
        self._base, self._start = 0.0, self._event()

    def __call__(self) -> float:
        event = self._event()
        event.synchronize()
        elapsed = 1e-3 * self._start.elapsed_time(event)
        if elapsed > 1.0:
            self._base, self._start = self._base + elapsed, event
            return self._base
        return self._base + elapsed

    @staticmethod
    def _event() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Times are those of the device that is measured."""
    clock = DeviceClock() if DEVICE.type == "cuda" else time.perf_counter
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=clock))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def side_divisor(request: pytest.FixtureRequest) -> int:
    """1 where rows are timed; without timing, sides of large maps are divided by 4."""
    return 4 if request.config.option.benchmark_disable else 1


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """Times one row and compares its result.

    Arguments: the operation, its backend ("cpp", "cuda", "reference", "torch.compile(reference)" or the name
    of a baseline), a text that says the shapes, the function without arguments, the expected outputs
    (float64), and the largest relative error allowed in a sample.
    """

    def row(
        operation: str,
        backend: str,
        shape: str,
        function: Callable[[], Outputs],
        expected: Outputs,
        tolerance: float = 1e-5,
    ) -> None:
        state = ext.backends().get(backend)
        if state is None and backend == "triton":
            pytest.skip("there is no Triton backend")
        if state is not None and not state.available:
            pytest.skip(state.reason)
        benchmark.group = operation
        with ext.use_backend(backend if state is not None else "reference"), torch.no_grad():
            outputs = benchmark(function)
        for one, other in zip(_tensors(outputs), _tensors(expected), strict=True):
            assert one.shape == other.shape
            for sample, exact in zip(one.double(), other.double().to(DEVICE), strict=True):
                assert (sample - exact).norm() <= tolerance * exact.norm()
        benchmark.extra_info.update(
            operation=operation,
            backend=backend,
            shape=shape,
            dtype=str(_tensors(outputs)[0].dtype).removeprefix("torch."),
            device=device_name(),
            python=platform.python_version(),
            torch=torch.__version__,
            latentdem=version("latentdem"),
        )

    return row
