"""Tensors of very large photographs, which lie in temporary files rather than in memory."""

from __future__ import annotations

import mmap
import os
import tempfile
import warnings
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LARGEST = 3 * 4 * 24 * 2**20  # bytes of a tensor in memory: 24 megapixels in three channels of float32


def zeros(
    shape: tuple[int, ...], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Zeros; a tensor of more than `LARGEST` bytes on the CPU lies in a temporary file.

    The system writes the parts that are not in use to the file when memory is short, and reads them again. The
    file is in the folder that TMPDIR names, has no name itself, and goes with the tensor. Where there is no
    room for it, a warning says so and the tensor is in memory.

    Args:
        shape: of the tensor.
        dtype: float32 if None.
        device: where it lies; only on the CPU it may be in a file.
    """
    import torch

    dtype = dtype or torch.float32
    count = prod(shape)
    size = count * dtype.itemsize
    if size <= LARGEST or torch.device(device).type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    try:
        memory = _mapped(size)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        warnings.warn(
            f"A photograph of this size is worked on in temporary files, but {tempfile.gettempdir()} has no "
            f"room for {size / 1e9:.1f} GB ({reason}); it takes memory instead. Set TMPDIR to a folder with "
            "more room.",
            UserWarning,
            stacklevel=2,
        )
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)


def copy(tensor: Tensor) -> Tensor:
    """A contiguous copy, for which the same holds as for `zeros`."""
    return zeros(tuple(tensor.shape), tensor.dtype, tensor.device).copy_(tensor)


def _mapped(size: int) -> mmap.mmap:
    """Zeros in a file without a name; all of its room is taken at once, as nothing could be done later."""
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for start in range(0, size, 2**24):
                file.write(bytes(min(2**24, size - start)))
            file.flush()
        return mmap.mmap(file.fileno(), size)
