"""From a corrected clean latent back to a noise level: the last part of a proximal step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backends, _checks, _cpp_ops, _triton_ops, reference
from ._eager import needs_dispatcher


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
    arguments = {"z_t": z_t, "z0": z0, "abar_t": abar_t, "abar_prev": abar_prev, "noise": noise, "fresh": fresh}
    _checks.no_gradient("renoise", **arguments)
    tensors = arguments.values()
    return _operation(*tensors) if needs_dispatcher(*tensors) else _compute(*tensors)


def _compute(
    z_t: Tensor, z0: Tensor, abar_t: Tensor, abar_prev: Tensor, noise: Tensor, fresh: Tensor
) -> Tensor:
    refusals = {"cpp": _cpp_ops.tensor_refusal("z_t", z_t), "triton": _triton_ops.refusal("z_t", z_t)}
    backend = _backends.choose("renoise", refusals)
    if backend == "cpp":
        return _cpp(z_t, z0, abar_t, abar_prev, noise, fresh)
    if backend == "triton":
        return _triton_ops.renoise(z_t, z0, abar_t, abar_prev, noise, fresh)
    return reference.renoise(z_t, z0, abar_t, abar_prev, noise, fresh).contiguous()


_operation = torch.library.custom_op(
    "latentdem::renoise",
    _compute,
    mutates_args=(),
    schema="(Tensor z_t, Tensor z0, Tensor abar_t, Tensor abar_prev, Tensor noise, Tensor fresh) -> Tensor",
)


def _cpp(z_t: Tensor, z0: Tensor, abar_t: Tensor, abar_prev: Tensor, noise: Tensor, fresh: Tensor) -> Tensor:
    latents = {"z_t": z_t, "z0": z0, "noise": noise}
    numbers = {"abar_t": abar_t, "abar_prev": abar_prev, "fresh": fresh}
    # The dictionary keeps the converted tensors alive until the call returns.
    held = {name: _cpp_ops.plain(tensor) for name, tensor in latents.items()}
    held |= {name: _cpp_ops.plain(tensor.double()) for name, tensor in numbers.items()}
    z_prev = torch.empty_like(held["z_t"])
    _cpp_ops.module().renoise(
        **{name: tensor.data_ptr() for name, tensor in held.items()},
        z_prev=z_prev.data_ptr(),
        batch=z_t.shape[0],
        numel=z_t[:1].numel(),
        threads=torch.get_num_threads(),
    )
    return z_prev


@_operation.register_fake
def _(z_t: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(z_t, memory_format=torch.contiguous_format)
