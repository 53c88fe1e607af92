"""The steps of a run as CUDA graphs, which a GPU goes through without the host's launching each kernel.

A step of small networks and latents is thousands of kernels that take a GPU less time than the host takes to
launch them. The first step of a kind is computed as usual, which also makes what is kept between steps; the
second is captured, and it and all later ones are replayed on buffers that are allocated once.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .step import Given, Step, Stepped

_log = logging.getLogger(__name__)
_wanted: ContextVar[bool] = ContextVar("cuda_graphs", default=True)
_clones = partial(tree_map_only, Tensor, torch.clone)


@contextmanager
def cuda_graphs(wanted: bool) -> Iterator[None]:
    """Whether runs within the context use CUDA graphs where they can."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


class Recorder(Protocol):
    """Computes functions of nothing, and records them."""

    def run(self, function: Callable[[], Any]) -> Any:
        """What `function` returns, computed where it will be recorded."""
        ...

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """A function that computes it again, and where the results then are.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        ...


class CudaRecorder:
    """Records CUDA graphs on a device, on a stream of its own; they share the memory of what lies between."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, _stream_of(device)
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], Any]) -> Any:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            results = function()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return results

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        # A graph that is collected meanwhile would end the capture.
        collects = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.stream(self._stream):
                graph.capture_begin(self._pool, "thread_local")
                try:
                    results = function()
                except BaseException:
                    with suppress(RuntimeError):  # of a capture that is invalid already
                        graph.capture_end()
                    raise
                graph.capture_end()
        finally:
            if collects:
                gc.enable()
        return graph.replay, results


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """One for all runs, as weights that were prepared for a stream are kept with it."""
    return torch.cuda.Stream(device)


class Replayed:
    """The steps of one run, computed, captured and replayed; the same methods as `Step`.

    Args:
        step: the steps.
        recorder: captures them.
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self._step, self._recorder = step, recorder
        self._kinds: dict[Any, _Kind] = {}

    def plain(self, given: Given, t: int) -> Tensor:
        """See `Step.plain`."""
        result: Tensor = self._compute(None, self._step.plain, given, t)
        return result

    def full(self, given: Given, t: int, with_m_step: bool) -> Stepped:
        """See `Step.full`."""
        function = partial(self._step.full, with_m_step=with_m_step)
        result: Stepped = self._compute(with_m_step, function, given, t)
        return result

    def _compute(
        self, with_m_step: bool | None, function: Callable[[Given, Tensor], Any], given: Given, t: int
    ) -> Any:
        kind = with_m_step, given.moving is None, given.warm_start is None
        if kind not in self._kinds:
            self._kinds[kind] = _Kind(function, self._recorder)
        return self._kinds[kind](given, t)


class _Kind:
    """Steps of one kind: with the same operations on tensors of the same sizes."""

    def __init__(self, function: Callable[[Given, Tensor], Any], recorder: Recorder) -> None:
        self._function, self._recorder = function, recorder
        self._given: Given | None = None
        self._t = torch.empty(0)
        self._replay: Callable[[], None] | None = None
        self._results: Any = None
        self._fails = False

    def __call__(self, given: Given, t: int) -> Any:
        if self._given is None:
            self._given = _clones(given)
            self._t = torch.full((), t, device=given.z.device)
            return _clones(self._recorder.run(self._compute_here))
        self._t.fill_(t)
        for kept, value in zip(self._given, given, strict=True):
            if kept is not None and value is not None:
                kept.copy_(value)
        if self._replay is None and not self._fails:
            self._capture()
        if self._replay is None:
            return _clones(self._compute_here())
        self._replay()
        return _clones(self._results)  # the next replay overwrites them

    def _compute_here(self) -> Any:
        assert self._given is not None
        return self._function(self._given, self._t)

    def _capture(self) -> None:
        try:
            self._replay, self._results = self._recorder.record(self._compute_here)
        except RuntimeError as error:
            self._fails = True
            _log.debug("Steps are not captured as a CUDA graph: %s", " ".join(str(error).split())[:200])


def steps_of(step: Step) -> Step | Replayed:
    """The steps as CUDA graphs where that is wanted and possible; a debug message says why it is not."""
    device = step.y.device
    reason = _obstacle(step, device) if _wanted.get() else "they are switched off"
    if reason:
        _log.debug("Steps are not captured as CUDA graphs: %s.", reason)
        return step
    return Replayed(step, CudaRecorder(device))


def _obstacle(step: Step, device: torch.device) -> str:
    if device.type != "cuda":
        return f"the device is {device}"
    for part in (step.prior, step.e_step, step.operator):
        if not getattr(part, "capturable", False):
            return f"a {type(part).__name__} may ask the device for values"
    return ""
