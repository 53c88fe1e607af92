"""Re-noising of a corrected clean latent in one pass; `latentdem_ext.reference.renoise` has the formula.

Types and precision as in `dps_step`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def kernel(z_t, z0, abar_t, abar_prev, noise, fresh, z_prev, numel, blocks, BLOCK: tl.constexpr):
    """Program: `BLOCK` items of one of the samples, which have `blocks` blocks each."""
    program = tl.program_id(0)
    sample = (program // blocks).to(tl.int64)
    now = tl.load(abar_t + sample).to(tl.float64)
    prev = tl.load(abar_prev + sample).to(tl.float64)
    share = tl.load(fresh + sample).to(tl.float64)
    signal_t = tl.sqrt(now).to(tl.float32)
    rsqrt_noise = (1 / tl.sqrt(1 - now)).to(tl.float32)
    signal_prev = tl.sqrt(prev).to(tl.float32)
    level = tl.sqrt(1 - prev)
    old = (level * tl.sqrt(1 - share)).to(tl.float32)
    new = (level * tl.sqrt(share)).to(tl.float32)

    item = program % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = item < numel
    at = sample * numel + item
    clean = tl.load(z0 + at, mask=inside).to(tl.float32)
    direction = (tl.load(z_t + at, mask=inside).to(tl.float32) - signal_t * clean) * rsqrt_noise
    moved = signal_prev * clean + old * direction
    moved += new * tl.load(noise + at, mask=inside).to(tl.float32)
    tl.store(z_prev + at, moved, mask=inside)


def launch(*, z_t: Tensor, z_prev: Tensor, **others: Tensor) -> None:
    """Write z_prev (B, ...), given the arguments of the operation: contiguous, on one device, not empty."""
    numel = z_t[0].numel()
    blocks = triton.cdiv(numel, BLOCK)
    sizes = {"numel": numel, "blocks": blocks, "BLOCK": BLOCK}
    kernel[(z_t.shape[0] * blocks,)](z_t=z_t, z_prev=z_prev, **others, **sizes, num_warps=4)
