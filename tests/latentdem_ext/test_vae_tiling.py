from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import latentdem_ext as ext
from latentdem_ext.vae import Window, blend_tiles, tile_windows


@pytest.mark.parametrize(("height", "width"), [(20, 20), (64, 64), (65, 100), (200, 63)])
def test_tiles_cover_the_image_and_blend_to_it(height, width):
    y = torch.randn(1, 3, height, width)
    sizes = []

    def identity(tile: Tensor, window: Window) -> Tensor:
        sizes.append(tile.shape[-2:])
        assert torch.equal(tile, y[..., window[0], window[1]])
        return tile

    torch.testing.assert_close(blend_tiles(y, identity, 64, 16), y)
    assert all(rows <= 64 and columns <= 64 for rows, columns in sizes)


def test_neighbouring_tiles_overlap():
    starts = sorted({rows.start for rows, _ in tile_windows(300, 64, 64, 16)})
    assert starts[0] == 0
    assert starts[-1] == 300 - 64
    assert all(b - a <= 64 - 16 for a, b in pairwise(starts))


def test_seams_are_blended():
    """Tiles that disagree by a constant give a ramp, not a step."""
    y = torch.zeros(1, 3, 64, 112)
    restored = blend_tiles(y, lambda tile, window: tile + float(window[1].start > 0), 64, 16)
    assert restored.diff(dim=-1).max() < 0.1
    assert restored[..., 0].max() == 0
    assert restored[..., -1].min() == 1


@pytest.fixture
def decoder() -> nn.Module:
    """Looks 3 latents far and makes 2 x 2 pixels of each."""
    layers = [
        nn.Conv2d(2, 6, 5, padding=2),
        nn.SiLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 3, 3, padding=1),
    ]
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (23, 61), (70, 25)])
def test_tiled_decoding_is_that_of_the_whole_where_the_decoder_sees_no_further(
    relative_error, decoder, height, width
):
    results = []
    z = torch.randn(2, 2, height, width).requires_grad_()
    towards = torch.randn(2, 3, 2 * height, 2 * width)
    for decode in (decoder, lambda z: ext.tiled_decode(decoder, z, tile=24, overlap=12)):
        y = decode(z)
        results.append((y, *torch.autograd.grad(y, z, towards)))
    for actual, expected in zip(results[1], results[0], strict=True):
        assert relative_error(actual, expected) < 1e-6


def test_gradient_is_that_of_the_blended_result(decoder):
    z = torch.randn(1, 2, 9, 7, dtype=torch.float64).requires_grad_()
    decoder.double()
    # In random directions: the whole Jacobian would decode every tile again for each pixel.
    assert torch.autograd.gradcheck(
        lambda z: ext.tiled_decode(decoder, z, tile=6, overlap=2), z, fast_mode=True
    )


def test_only_one_tile_is_kept_for_the_gradient(decoder):
    """Of all tensors that the graph holds, none but the latent is of a decoder's inside."""
    kept: list[Tensor] = []
    z = torch.randn(1, 2, 40, 40).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ext.tiled_decode(decoder, z, tile=16, overlap=8)
    assert kept
    assert all(tensor.shape[1] in (1, 2, 3) for tensor in kept if tensor.dim() == 4)


def test_half_precision_stays(decoder):
    z = torch.randn(1, 2, 30, 30).bfloat16()
    assert ext.tiled_decode(decoder.bfloat16(), z, tile=16, overlap=8).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("given", "error", "name"),
    [
        ((torch.zeros(3, 4, 4),), ValueError, "z"),
        ((torch.zeros(1, 3, 4, 4, dtype=torch.int64),), TypeError, "z"),
        ((torch.zeros(1, 3, 4, 4), 0), ValueError, "tile"),
        ((torch.zeros(1, 3, 4, 4), 8, 8), ValueError, "overlap"),
        ((torch.zeros(1, 3, 4, 4), 8, 1.5), TypeError, "overlap"),
    ],
)
def test_wrong_arguments_are_named(given, error, name):
    z, *sizes = given
    with pytest.raises(error, match=name):
        ext.tiled_decode(lambda z: z, z, **dict(zip(("tile", "overlap"), sizes, strict=False)))
