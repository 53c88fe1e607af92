"""The 4 x 4 kernel of upsampling and convolving at once, computed once for each weight.

Nearest upsampling by 2 followed by a 3 x 3 convolution is the transposed convolution of stride 2 whose kernel
is the (flipped) 3 x 3 kernel convolved with ones(2, 2): along one axis, out[2i] = w0 x[i - 1] + (w1 + w2) x[i]
and out[2i + 1] = (w0 + w1) x[i] + w2 x[i + 1], that is out[o] = sum over i of x[i] k[o - 2i + 1] with
k = (w2, w1 + w2, w0 + w1, w0).
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import reference


class _Folded(NamedTuple):
    version: int  # of the weight when it was folded
    source: Tensor  # keeps the weight's memory of then alive, so that no other tensor can get its address
    kernel: Tensor


# weight -> {(stream, dtype) -> _Folded}. A weight's entry is deleted with the weight. Streams have entries of
# their own, because a kernel that was folded on one stream may be incomplete or freed too early for another.
_cache = WeakTensorKeyDictionary()
_lock = threading.Lock()


def fold(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, C, 3, 3) -> (C, O, 4, 4), channels last: k above along both axes, summed in float32 or more."""
    flipped = reference.arithmetic(weight).flip(-2, -1)
    rows = F.pad(flipped, (0, 0, 0, 1)) + F.pad(flipped, (0, 0, 1, 0))
    kernel = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
    return kernel.to(dtype).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def folded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`fold(weight, dtype)`, kept until the weight changes or is deleted.

    The version counter of the weight shows in-place changes, its address shows replaced memory; changes made
    through `weight.data` are not seen. Therefore a weight that requires a gradient, which optimisers may
    write to in that way, is folded again at every call. So are weights without a version counter (made in
    inference mode), and a weight that is not in the cache while a CUDA graph is being recorded: what is
    computed then exists only when the graph is replayed.
    """
    if weight.requires_grad or weight.is_inference():
        return fold(weight.detach(), dtype)
    key = (torch.cuda.current_stream(weight.device).cuda_stream if weight.is_cuda else 0, dtype)
    with _lock:
        known = _cache.get(weight, {})
        entry = known.get(key)
        if entry is not None and entry.version == weight._version and _same_memory(entry.source, weight):
            return entry.kernel
        if weight.is_cuda and torch.cuda.is_current_stream_capturing():
            return fold(weight, dtype)
        with torch.inference_mode(False), torch.no_grad():
            kernel = fold(weight, dtype)
            if entry is not None and _alike(entry.kernel, kernel):
                # Recorded CUDA graphs may read the old address.
                kernel = entry.kernel.copy_(kernel)
            _cache[weight] = known | {key: _Folded(weight._version, weight.detach(), kernel)}
        return kernel


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and _alike(a, b) and a.stride() == b.stride()


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
