from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import latentdem_ext as ext
from latentdem_ext import _winograd

pytestmark = pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
# Sides of all rests of 4, fewer pixels than a tile, blocks of tiles over several images, channels with and
# without a rest of 16.
SHAPES = [
    ((2, 5, 9, 11), 7),
    ((1, 16, 1, 1), 16),
    ((3, 8, 2, 3), 33),
    ((1, 4, 70, 64), 4),
    ((1, 48, 12, 24), 32),
]


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


def test_rounding_is_a_few_times_that_of_the_direct_sum(relative_error):
    x, weight, bias = problem((1, 128, 32, 32), 128)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    direct = relative_error(F.conv2d(x, weight, bias, padding=1), exact)
    assert relative_error(_winograd.convolve(x, weight, bias), exact) < 6 * direct  # measured: 4.4


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_a_doubled_image_is_convolved_as_if_it_were_written(relative_error, shape, outputs, biased):
    x, weight, bias = (value.detach() for value in problem(shape, outputs))
    bias = bias if biased else None
    fine = F.interpolate(x.double(), scale_factor=2, mode="nearest")
    exact = F.conv2d(fine, weight.double(), None if bias is None else bias.double(), padding=1)
    assert relative_error(_winograd.compute(x, weight, bias, doubled=True), exact) < 1e-6


def test_number_of_threads_does_not_matter(on_every_number_of_threads):
    x, weight, bias = problem((1, 8, 41, 39), 8)
    first, *others = on_every_number_of_threads(lambda: (_winograd.convolve(x, weight, bias),))
    for (other,) in others:
        torch.testing.assert_close(other, first[0], rtol=1e-6, atol=1e-6)


def test_registered_operation():
    x, weight, bias = problem((1, 3, 6, 5), 4)
    torch.library.opcheck(torch.ops.latentdem.winograd_convolution.default, (x, weight, bias, False))


def test_is_for_frozen_float32_convolutions(monkeypatch):
    monkeypatch.setattr(_winograd, "_has_wide_vectors", lambda: True)
    x, weight, bias = problem((1, 32, 12, 12), 32)
    assert _winograd.suits(x, weight, bias)
    assert not _winograd.suits(x[..., :8, :8], weight, bias)
    assert not _winograd.suits(x[:, :4], weight[:, :4], bias)
    assert not _winograd.suits(x.double(), weight.double(), bias.double())
    assert not _winograd.suits(x, weight.clone().requires_grad_(), bias)
    with ext.use_backend("reference"):
        assert not _winograd.suits(x, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert not _winograd.suits(x, weight, bias)


def test_transforms_of_large_weights_are_not_kept(monkeypatch):
    monkeypatch.setattr(_winograd, "_has_wide_vectors", lambda: True)
    _, weight, _ = problem((1, 260, 1, 1), 260)
    before = len(_winograd._transformed._entries)
    _winograd.convolve(torch.randn(1, 260, 4, 4), weight, None)
    assert len(_winograd._transformed._entries) == before
    assert not _winograd.pays(torch.empty(1, 260, 64, 64), weight)
    assert _winograd.pays(torch.empty(1, 260, 128, 128), weight)


def test_convolution_takes_the_algorithm_that_suits(monkeypatch):
    """Learned weights and other types are left to PyTorch, with the same result and all gradients."""
    monkeypatch.setattr(_winograd, "_has_wide_vectors", lambda: True)
    x, weight, bias = problem((1, 16, 12, 12), 16)
    with ext.record_backends() as used:
        fast = ext.convolution(x, weight, bias)
    assert used["convolution"] == ["cpp"]
    slow = ext.convolution(x, weight.requires_grad_(), bias)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    assert torch.autograd.grad(slow.sum(), weight)[0].shape == weight.shape
    double = ext.convolution(x.double(), weight.detach().double(), bias.double())
    torch.testing.assert_close(double.float(), slow, rtol=1e-5, atol=1e-5)
