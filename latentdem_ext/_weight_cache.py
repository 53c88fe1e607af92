"""What is computed from weights that are not learned, kept until they change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Variant = TypeVar("Variant", bound=Hashable)


class _Entry(NamedTuple):
    version: int  # of the weight when the result was computed
    source: Tensor  # keeps the weight's memory of then alive, so that no other tensor can get its address
    result: Tensor


class WeightCache(Generic[Variant]):
    """`compute(weight, variant)`, kept until the weight changes or is deleted.

    The version counter of the weight shows in-place changes, its address shows replaced memory; changes made
    through `weight.data` are not seen. Therefore the result for a weight that requires a gradient, which
    optimisers may write to in that way, is computed at every call. So are those for weights without a version
    counter (made in inference mode), and for a weight that is not in the cache while a CUDA graph is being
    recorded: what is computed then exists only when the graph is replayed.

    Args:
        compute: of a weight and a hashable variant, a tensor on its device.
    """

    def __init__(self, compute: Callable[[Tensor, Variant], Tensor]) -> None:
        self._compute = compute
        # weight -> {(stream, variant) -> entry}. A weight's entry is deleted with the weight. Streams have
        # entries of their own, because what was computed on one stream may be incomplete or freed too early for
        # another.
        self._entries = WeakTensorKeyDictionary()
        self._lock = threading.Lock()

    def __call__(self, weight: Tensor, variant: Variant) -> Tensor:
        if weight.requires_grad or weight.is_inference():
            return self._compute(weight.detach(), variant)
        key = (torch.cuda.current_stream(weight.device).cuda_stream if weight.is_cuda else 0, variant)
        with self._lock:
            known = self._entries.get(weight, {})
            entry = known.get(key)
            if entry is not None and entry.version == weight._version and _same_memory(entry.source, weight):
                return entry.result
            if weight.is_cuda and torch.cuda.is_current_stream_capturing():
                return self._compute(weight, variant)
            with torch.inference_mode(False), torch.no_grad():
                result = self._compute(weight, variant)
                if entry is not None and _alike(entry.result, result):
                    # Recorded CUDA graphs may read the old address.
                    result = entry.result.copy_(result)
                self._entries[weight] = known | {key: _Entry(weight._version, weight.detach(), result)}
            return result


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and _alike(a, b) and a.stride() == b.stride()


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
