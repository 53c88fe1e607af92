"""Time of an operation on the device, and apart from it that of the host to start it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

ROUNDS = 20
CALLS = 30  # whose launches fit in the queue of a device, else the host waits for it
WARMED_UP = 3


def device_time(functions: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Microseconds of a function on the device: median, and the distance of the quartiles.

    The functions do the same on different inputs. All are captured in one CUDA graph, which is replayed:
    nothing waits for the host, and inputs and results come from memory where together they exceed the cache.
    On a processor the functions are called.
    """
    if not torch.cuda.is_available():
        return _microseconds([_host_seconds(functions) for _ in range(ROUNDS)], len(functions))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMED_UP):
            for function in functions:
                function()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):  # with which prepared weights are kept
        results = [function() for function in functions]  # kept, or the next one would write to the same memory
    graph.replay()
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(ROUNDS)]
    for start, end in pairs:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    del results
    return _microseconds([1e-3 * start.elapsed_time(end) for start, end in pairs], len(functions))


def host_time(function: Callable[[], Any]) -> float:
    """Microseconds of the host for a call, median: the device works on meanwhile."""
    for _ in range(WARMED_UP):
        function()
    _synchronise()
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    _synchronise()
    return 1e6 * statistics.median(times)


def _host_seconds(functions: Sequence[Callable[[], Any]]) -> float:
    begin = time.perf_counter()
    for function in functions:
        function()
    return time.perf_counter() - begin


def _microseconds(seconds: Sequence[float], functions: int) -> dict[str, float]:
    low, median, high = (1e6 * value / functions for value in statistics.quantiles(seconds, n=4))
    return {"device_us": median, "quartiles_us": high - low}


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
