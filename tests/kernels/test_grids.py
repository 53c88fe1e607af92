"""How many programs the Triton kernels start: enough for a large GPU, and no more than a launch can have."""

from __future__ import annotations

import math

import pytest
import torch

triton = pytest.importorskip("triton", reason="the extra cuda is not installed")

from latentdem_kernels import group_norm_silu, upsample_conv  # noqa: E402

MULTIPROCESSORS = 132  # of an H100 or H200
# Channels and side of the feature maps before a norm in the autoencoder of Stable Diffusion at 512 x 512.
NORMS = [(512, 64), (512, 128), (512, 256), (256, 256), (256, 512), (128, 512), (128, 256), (256, 128)]
UPSAMPLES = [(512, 64), (512, 128), (256, 256)]
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def norm(batch: int, channels: int, side: int, layout: torch.memory_format) -> group_norm_silu.Plan:
    x = torch.empty(batch, channels, side, side, device="meta").contiguous(memory_format=layout)
    return group_norm_silu.plan(x, 32)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("channels", "side"), NORMS)
def test_every_norm_of_an_autoencoder_fills_a_device(channels, side, layout):
    plan = norm(1, channels, side, layout)
    assert math.prod(plan.by_part) >= 3 * MULTIPROCESSORS
    assert math.prod(plan.by_tile) >= 3 * MULTIPROCESSORS
    assert plan.parts * plan.span >= side**2
    assert (plan.parts - 1) * plan.span < side**2


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_large_batches_fit_in_a_launch(layout):
    plan = norm(70_000, 32, 8, layout)
    for grid in (plan.by_part, plan.by_tile, plan.by_group):
        assert len(grid) == 1  # the first dimension holds 2^31 - 1, the others 65,535
        assert grid[0] < 2**31


@pytest.mark.parametrize(("channels", "side"), UPSAMPLES)
def test_every_upsampling_of_an_autoencoder_fills_a_device(channels, side):
    tile = upsample_conv.configuration(2, channels, channels)
    blocks = triton.cdiv(side**2, tile["BLOCK_M"]) * triton.cdiv(channels, tile["BLOCK_N"])
    assert 4 * blocks >= MULTIPROCESSORS


def test_precision_of_convolutions_is_asked_without_raising():
    settings = getattr(torch.backends.cudnn, "conv", None)
    if settings is None:
        pytest.skip("PyTorch before 2.9 has one setting for both")
    before = settings.fp32_precision
    try:
        for precision in ("ieee", "tf32"):  # the recurrent networks keep theirs
            settings.fp32_precision = precision
            assert upsample_conv.convolutions_use_tf32() == (precision == "tf32")
    finally:
        settings.fp32_precision = before
