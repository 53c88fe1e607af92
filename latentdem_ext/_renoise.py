"""From a corrected clean latent back to a noise level: the last part of a proximal step."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks, reference


def renoise(
    z_t: Tensor,
    z0: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    noise: Tensor,
    fresh: float | Tensor,
) -> Tensor:
    """Latent of the earlier timestep from (B, ...) z_t and z0: see `reference.renoise`.

    `fresh` in [0, 1], one number or (B,), is the share of the noise variance that comes from `noise`.

    Raises:
        TypeError: an argument is not a floating-point tensor, or the dtypes of z_t, z0 and noise differ.
        ValueError: shapes or devices do not go together, or the number `fresh` is not in [0, 1].
    """
    _checks.tensor("z_t", z_t, _checks.REAL_DTYPES)
    _checks.companion("z0", z0, "z_t", z_t)
    _checks.companion("noise", noise, "z_t", z_t)
    for name, value in (("abar_t", abar_t), ("abar_prev", abar_prev)):
        _checks.per_sample(name, value, "z_t", z_t)
    if not isinstance(fresh, Tensor):
        if not 0.0 <= fresh <= 1.0:
            raise ValueError(f"fresh must be between 0 and 1, not {fresh}")
        fresh = torch.full_like(abar_t, fresh)
    _checks.per_sample("fresh", fresh, "z_t", z_t)
    return reference.renoise(z_t, z0, abar_t, abar_prev, noise, fresh)
