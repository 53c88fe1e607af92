from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import latentdem_ext as ext
from latentdem_ext import _winograd

pytestmark = pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
# Even and odd sides, fewer pixels than a tile, more than one band of tiles, channels with and without a rest.
SHAPES = [((2, 5, 9, 11), 7), ((1, 16, 1, 1), 16), ((3, 8, 2, 3), 33), ((1, 4, 70, 64), 4), ((1, 3, 5, 600), 2)]


def problem(shape, outputs, dtype=torch.float32):
    x = torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(outputs, shape[1], 3, 3, dtype=torch.float64) / (3 * shape[1] ** 0.5)
    bias = torch.randn(outputs, dtype=torch.float64)
    return x, weight.to(dtype), bias.to(dtype)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
@pytest.mark.usefixtures("poisoned")
def test_result_and_gradient_are_those_of_the_convolution(relative_error, shape, outputs, layout, biased):
    x, weight, bias = problem(shape, outputs)
    bias = bias if biased else None
    y = _winograd.convolve(x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout), bias)
    towards = torch.randn_like(y)
    exact_x = x.detach().double().requires_grad_()
    exact = F.conv2d(exact_x, weight.double(), None if bias is None else bias.double(), padding=1)
    assert relative_error(y, exact) < 1e-6
    actual, expected = (torch.autograd.grad(a, b, towards.to(a))[0] for a, b in ((y, x), (exact, exact_x)))
    assert relative_error(actual, expected) < 1e-6


def test_rounding_is_no_worse_than_that_of_the_direct_sum(relative_error):
    x, weight, bias = problem((1, 128, 32, 32), 128)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    direct = relative_error(F.conv2d(x, weight, bias, padding=1), exact)
    assert relative_error(_winograd.convolve(x, weight, bias), exact) < max(direct, 1e-6)


def test_number_of_threads_does_not_matter(on_every_number_of_threads):
    x, weight, bias = problem((1, 8, 41, 39), 8)
    first, *others = on_every_number_of_threads(lambda: (_winograd.convolve(x, weight, bias),))
    for (other,) in others:
        torch.testing.assert_close(other, first[0], rtol=1e-6, atol=1e-6)


def test_registered_operation():
    x, weight, bias = problem((1, 3, 6, 5), 4)
    torch.library.opcheck(torch.ops.latentdem.winograd_convolution.default, (x, weight, bias, False))


def test_is_for_large_frozen_float32_convolutions():
    x, weight, bias = problem((1, 128, 32, 32), 128)
    assert _winograd.suits(x, weight, bias)
    assert not _winograd.suits(x[..., :8, :8], weight, bias)
    assert not _winograd.suits(x[:, :64], weight[:, :64], bias)
    assert not _winograd.suits(x.double(), weight.double(), bias.double())
    assert not _winograd.suits(x, weight.clone().requires_grad_(), bias)
    with ext.use_backend("reference"):
        assert not _winograd.suits(x, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert not _winograd.suits(x, weight, bias)
