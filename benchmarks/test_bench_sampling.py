from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentdem_ext import reference

from .rows import DEVICE, STREAMING, implementation

SHAPES = [(1, 4, 64, 64), (8, 4, 64, 64)]


def numbers(batch: int) -> tuple[Tensor, Tensor]:
    now = torch.rand(batch, device=DEVICE) * 0.5 + 0.1
    return now, now + 0.1


@pytest.mark.parametrize("backend", STREAMING)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", ["DDIM", "with gradient", "everything"])
def test_dps_step(measure, variant, shape, backend):
    z_t, eps, uncond, noise, gradient = torch.randn(5, *shape, device=DEVICE)
    abar_t, abar_prev = numbers(shape[0])
    options = {}
    if variant != "DDIM":
        options |= {"gradient": gradient, "step_size": torch.rand(shape[0], device=DEVICE)}
    if variant == "everything":
        options |= {"eps_uncond": uncond, "guidance": 7.5, "eta": 0.5, "noise": noise}
    run = implementation("dps_step", backend)
    double = {k: v.double() if isinstance(v, Tensor) else v for k, v in options.items()}
    expected = reference.dps_step(z_t.double(), eps.double(), abar_t.double(), abar_prev.double(), **double)
    measure(
        f"dps_step, {variant}",
        backend,
        " x ".join(map(str, shape)),
        lambda: run(z_t, eps, abar_t, abar_prev, **options),
        expected,
    )


@pytest.mark.parametrize("backend", STREAMING)
@pytest.mark.parametrize("shape", SHAPES)
def test_renoise(measure, shape, backend):
    z_t, z0, noise = torch.randn(3, *shape, device=DEVICE)
    abar_t, abar_prev = numbers(shape[0])
    fresh = torch.full((shape[0],), 0.5, device=DEVICE)
    run = implementation("renoise", backend)
    expected = reference.renoise(*(v.double() for v in (z_t, z0, abar_t, abar_prev, noise, fresh)))
    measure(
        "renoise",
        backend,
        " x ".join(map(str, shape)),
        lambda: run(z_t, z0, abar_t, abar_prev, noise, fresh),
        expected,
    )
