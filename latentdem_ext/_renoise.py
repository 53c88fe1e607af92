"""Re-noising of a corrected clean latent: the last part of a proximal step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
from ._registry import Implementation, Operation


def renoise(
    z_t: Tensor,
    z0: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    noise: Tensor,
    fresh: float | Tensor,
) -> Tensor:
    """Latent of the earlier timestep from (B, ...) z_t and z0: see `reference.renoise`.

    `fresh` in [0, 1], one number or (B,), is the share of the noise variance that comes from `noise`. Not
    differentiable.

    Raises:
        TypeError: an argument is not a floating-point tensor, or the dtypes of z_t, z0 and noise differ.
        ValueError: shapes or devices do not go together, the number `fresh` is not in [0, 1], or an argument
            requires a gradient.
    """
    _checks.tensor("z_t", z_t, _checks.REAL_DTYPES)
    _checks.companion("z0", z0, "z_t", z_t)
    _checks.companion("noise", noise, "z_t", z_t)
    for name, value in (("abar_t", abar_t), ("abar_prev", abar_prev)):
        _checks.per_sample(name, value, "z_t", z_t)
    if not isinstance(fresh, Tensor):
        _checks.number("fresh", fresh, 0, 1)
        fresh = torch.full_like(abar_t, fresh)
    _checks.per_sample("fresh", fresh, "z_t", z_t)
    _checks.no_gradient("renoise", z_t=z_t, z0=z0, abar_t=abar_t, abar_prev=abar_prev, noise=noise, fresh=fresh)
    result: Tensor = _operation.run(z_t, z0, abar_t, abar_prev, noise, fresh)
    return result


def _cpp(z_t: Tensor, *others: Tensor) -> Tensor:
    arguments = _native.plain_arguments(
        _operation.named((z_t, *others)), double=("abar_t", "abar_prev", "fresh")
    )
    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    _native.call_cpp("renoise", **arguments, z_prev=z_prev, batch=z_t.shape[0], numel=z_t[0].numel())
    return z_prev


def _triton(z_t: Tensor, *others: Tensor) -> Tensor:
    from latentdem_kernels import renoise as kernels

    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(z_t):
        kernels.launch(**_native.plain_arguments(_operation.named((z_t, *others))), z_prev=z_prev)
    return z_prev


def _fake(z_t: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(z_t, memory_format=torch.contiguous_format)


_operation = Operation(
    "renoise",
    "(Tensor z_t, Tensor z0, Tensor abar_t, Tensor abar_prev, Tensor noise, Tensor fresh) -> Tensor",
    reference=reference.renoise,
    fake=_fake,
    backends={
        "cpp": Implementation(_cpp, _native.cpp_refusal),
        "triton": Implementation(_triton, _native.triton_refusal),
    },
)
