"""Kernels moved so that their centre of mass is where their origin is."""

from __future__ import annotations

import torch
from torch import Tensor

import latentdem_ext as ext


def centre_kernel(kernel: Tensor) -> Tensor:
    """Moves each kernel (B, 1, K, K) by whole pixels so that its centre of mass is nearest to K // 2.

    Parts that leave the frame are lost, and the sum is restored to 1. Image and kernel share a shift that no
    measurement determines; without centring the pair can drift until the kernel is cut off at the frame.
    """
    size = kernel.shape[-1]
    index = torch.arange(size, device=kernel.device)
    offset = index.to(kernel.dtype) - size // 2
    # Sums kernel by kernel, so that none changes with the batch it is in.
    centres = [[(k.sum(other)[0] * offset).sum() for other in (-1, -2)] for k in kernel]
    rows, columns = torch.stack([torch.stack(pair) for pair in centres]).round().long().view(-1, 2, 1).unbind(1)
    rows, columns = rows + index, columns + index  # (B, K), the pixels that come to each place
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None]
    batch = torch.arange(len(kernel), device=kernel.device)[:, None, None]
    moved = kernel[batch, 0, rows.clamp(0, size - 1)[:, :, None], columns.clamp(0, size - 1)[:, None]]
    return ext.project_kernel(torch.where(inside, moved, 0.0)[:, None])
