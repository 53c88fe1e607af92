"""The decoder of Stable Diffusion 1.5, random weights: the module of diffusers, and accelerated."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

import latentdem_ext as ext

from .rows import DEVICE, STREAMING

ACCELERATED = STREAMING[-1]
# A processor takes minutes for a row of 512 x 512 pixels.
SIZES = [
    64,
    *(pytest.param(size, marks=pytest.mark.slow) for size in ((256, 512) if DEVICE.type == "cuda" else (256,))),
]
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def decoder(dtype: torch.dtype) -> nn.Module:
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    return vae.decoder.eval().requires_grad_(False).to(DEVICE, dtype)


def decoded(module: nn.Module, z: Tensor, towards: Tensor | None) -> Tensor:
    """The image, or the gradient of <image, towards> in z."""
    if towards is None:
        return module(z)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        return torch.autograd.grad(module(z), z, towards)[0]


@pytest.mark.parametrize("backend", ["diffusers", "diffusers, channels last", ACCELERATED])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("direction", ["decode", "decode and gradient"])
def test_decode(measure, backend, size, dtype, direction):
    module = decoder(dtype)
    z = torch.randn(1, 4, size // 8, size // 8, device=DEVICE).to(dtype)
    towards = None if direction == "decode" else torch.randn(1, 3, size, size, device=DEVICE).to(dtype)
    with torch.no_grad():
        expected = decoded(module, z, towards)
    if backend == ACCELERATED:
        ext.accelerate_vae(module)
    elif backend != "diffusers":
        module.to(memory_format=torch.channels_last)
    measure(
        f"VAE, {direction}",
        backend,
        f"1 x 3 x {size} x {size}",
        lambda: decoded(module, z, towards),
        expected,
        TOLERANCES[dtype],
    )
