"""One step of diffusion posterior sampling in one pass; `latentdem_ext.reference.dps_step` has the formula.

Latents of any floating-point type up to float32 are read and written once, arithmetic is float32. The numbers
of a sample are worked out by every program in float64, because 1 - abar loses digits at either end of the
schedule; the device is never waited for.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def kernel(
    z_t,
    eps,
    eps_uncond,
    noise,
    gradient,
    abar_t,
    abar_prev,
    step_size,
    z_prev,
    z0,
    numel,
    blocks,
    guidance,
    eta,
    BLOCK: tl.constexpr,
):
    """Program: `BLOCK` items of one of the samples, which have `blocks` blocks each. None: a term left out."""
    program = tl.program_id(0)
    sample = (program // blocks).to(tl.int64)
    now = tl.load(abar_t + sample).to(tl.float64)
    prev = tl.load(abar_prev + sample).to(tl.float64)
    spread = eta * tl.sqrt((1 - prev) / (1 - now) * (1 - now / prev))
    noise_t = tl.sqrt(1 - now).to(tl.float32)
    rsqrt_t = (1 / tl.sqrt(now)).to(tl.float32)
    signal_prev = tl.sqrt(prev).to(tl.float32)
    noise_prev = tl.sqrt(tl.maximum(1 - prev - spread * spread, 0.0)).to(tl.float32)

    item = program % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = item < numel
    at = sample * numel + item
    predicted = tl.load(eps + at, mask=inside).to(tl.float32)
    if eps_uncond is not None:
        uncond = tl.load(eps_uncond + at, mask=inside).to(tl.float32)
        predicted = uncond + guidance * (predicted - uncond)
    clean = (tl.load(z_t + at, mask=inside).to(tl.float32) - noise_t * predicted) * rsqrt_t
    moved = signal_prev * clean + noise_prev * predicted
    if noise is not None:
        moved += spread.to(tl.float32) * tl.load(noise + at, mask=inside).to(tl.float32)
    if gradient is not None:
        step = tl.load(step_size + sample).to(tl.float32)
        moved -= step * tl.load(gradient + at, mask=inside).to(tl.float32)
    tl.store(z0 + at, clean, mask=inside)
    tl.store(z_prev + at, moved, mask=inside)


def launch(
    *, z_t: Tensor, z_prev: Tensor, z0: Tensor, guidance: float, eta: float, **others: Tensor | None
) -> None:
    """Write z_prev and z0 (B, ...); the arguments of the operation are contiguous, on one device, not empty."""
    numel = z_t[0].numel()
    blocks = triton.cdiv(numel, BLOCK)
    sizes = {"numel": numel, "blocks": blocks, "BLOCK": BLOCK}
    scales = {"guidance": float(guidance), "eta": float(eta)}
    kernel[(z_t.shape[0] * blocks,)](z_t=z_t, z_prev=z_prev, z0=z0, **others, **scales, **sizes, num_warps=4)
