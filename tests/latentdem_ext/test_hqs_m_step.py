from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import latentdem_ext as ext
from latentdem_ext import _backends, _hqs_m_step, _native, reference

from .fuzzing import fuzz

SHIPPED = (2, 32, 32, 32, 32, 1)  # channels before and after each layer of the shipped denoiser


def layers_of(*channels: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    pairs = list(zip(channels[1:], channels[:-1], strict=True))
    weights = [torch.randn(o, i, 3, 3, dtype=dtype) / (3 * i**0.5) for o, i in pairs]
    return weights, [0.1 * torch.randn(o, dtype=dtype) for o, _ in pairs]


def factors_of(batch: int, size: int, dtype: torch.dtype = torch.float32) -> ext.HQSFactors:
    side = reference.padded_side(size, torch.device("cpu"))
    data_term = torch.rand(batch, 1, size, size, dtype=dtype)
    return ext.HQSFactors(data_term, torch.rand(batch, 1, side, side // 2 + 1, dtype=dtype))


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("channels", [(2, 1), (2, 3, 5, 1), SHIPPED])
def test_definition_is_a_network_of_modules_between_updates(channels, relative):
    """DnCNN of `nn.Module`s, sample by sample, between single updates and projections written out."""
    weights, biases = layers_of(*channels, dtype=torch.float64)
    modules: list[nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1).double()
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        modules += [layer, nn.ReLU()]
    network, factors = nn.Sequential(*modules[:-1]), factors_of(2, 7, torch.float64)
    kernel, level = torch.rand(2, 1, 7, 7, dtype=torch.float64), torch.tensor([0.1, 0.3]).double()
    actual = ext.hqs_m_step(kernel, factors, weights, biases, level, relative=relative, iterations=3)
    for n in range(2):
        expected, part = kernel[n : n + 1], ext.HQSFactors(*(factor[n : n + 1] for factor in factors))
        for _ in range(3):
            expected = reference.hqs_kernel_update(expected, part)
            peak = expected.max()
            s = float(level[n] if relative else level[n] / peak)
            with torch.no_grad():
                noise = network(torch.cat([expected / peak, torch.full_like(expected, s)], 1))
            expected = (peak * (expected / peak - s * noise)).clamp(min=0)
            expected = expected / expected.sum()
        torch.testing.assert_close(actual[n : n + 1], expected)


def test_separate_operations_give_the_same():
    kernel, factors, level = torch.rand(3, 1, 12, 12), factors_of(3, 12), torch.full((3,), 0.05)
    layers = layers_of(*SHIPPED)
    actual = ext.hqs_m_step(kernel, factors, *layers, level, iterations=4)
    with ext.use_backend("reference"), ext.record_backends() as used:
        expected = ext.hqs_m_step(kernel, factors, *layers, level, iterations=4)
    assert used == {"hqs_m_step": ["reference"]}
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)


def test_one_launch_is_for_the_shipped_layers_on_request(monkeypatch):
    """Sizes that fit in shared memory, float32, no gradient, and a device has not measured it yet."""
    monkeypatch.setattr(_native, "cuda_refusal", lambda name, tensor: "")
    kernel, factors, layers = torch.rand(1, 1, 9, 9), factors_of(1, 9), layers_of(*SHIPPED)
    factors = ext.HQSFactors(factors.data_term, torch.rand(1, 1, 32, 17))
    assert not ext.hqs_m_step_is_one_launch(kernel, factors, *layers)
    monkeypatch.setattr(_backends, "requested_backend", lambda: "cuda")
    assert ext.hqs_m_step_is_one_launch(kernel, factors, *layers)
    assert not ext.hqs_m_step_is_one_launch(kernel, factors, *layers_of(2, 32, 32, 32, 1))
    assert not ext.hqs_m_step_is_one_launch(kernel, factors, layers[0], [b.double() for b in layers[1]])
    learned = [layers[0][0].clone().requires_grad_(), *layers[0][1:]]
    assert not ext.hqs_m_step_is_one_launch(kernel, factors, learned, layers[1])
    large = torch.rand(1, 1, 65, 65), factors_of(1, 65)
    assert not ext.hqs_m_step_is_one_launch(*large, *layers)
    refused = _hqs_m_step._cuda_refusal("kernel", large[0], *large[1], layers[0])
    assert refused == "K = 65 on a grid of 144 points a side does not fit in the shared memory of a block"
    refused = _hqs_m_step._cuda_refusal("kernel", kernel, *factors, layers_of(2, 1)[0])
    assert refused == "weights are not those of five layers with 32 channels in between"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_registration(dtype):
    factors, layers = factors_of(2, 5, dtype), layers_of(2, 3, 1, dtype=dtype)
    kernel, level = torch.rand(2, 1, 5, 5, dtype=dtype), torch.full((2,), 0.1, dtype=dtype)
    torch.library.opcheck(torch.ops.latentdem.hqs_m_step.default, (kernel, *factors, *layers, level, True, 2))


def test_bad_arguments_are_named():
    kernel, factors, level = torch.rand(2, 1, 5, 5), factors_of(2, 5), torch.full((2,), 0.1)
    weights, biases = layers_of(2, 3, 1)
    with pytest.raises(TypeError, match="factors must be what hqs_prepare returns, not tuple"):
        ext.hqs_m_step(kernel, tuple(factors), weights, biases, level)
    with pytest.raises(TypeError, match="weights must be a list of tensors, not Tensor"):
        ext.hqs_m_step(kernel, factors, weights[0], biases, level)
    with pytest.raises(ValueError, match="at least one: they are 2 and 1"):
        ext.hqs_m_step(kernel, factors, weights, biases[:1], level)
    with pytest.raises(ValueError, match=r"weights\[1\] must have shape \(1, 3, 3, 3\)"):
        ext.hqs_m_step(kernel, factors, [weights[0], torch.rand(1, 4, 3, 3)], biases, level)
    with pytest.raises(ValueError, match=r"biases\[0\] must have shape \(3,\)"):
        ext.hqs_m_step(kernel, factors, weights, [biases[1], biases[1]], level)
    with pytest.raises(TypeError, match=r"weights\[0\] must be of dtype float32, not float64"):
        ext.hqs_m_step(kernel, factors, [weight.double() for weight in weights], biases, level)
    with pytest.raises(ValueError, match=r"level must have shape \(2,\)"):
        ext.hqs_m_step(kernel, factors, weights, biases, level[:1])
    with pytest.raises(ValueError, match=r"weights\[0\] requires a gradient, which hqs_m_step does"):
        ext.hqs_m_step(kernel, factors, [weights[0].requires_grad_(), weights[1]], biases, level)
    with pytest.raises(ValueError, match="iterations must be at least 1, not 0"):
        ext.hqs_m_step(kernel, factors, *layers_of(2, 1), level, iterations=0)


def test_arguments_of_every_kind_are_taken_or_refused_by_name():
    def valid(batch: int) -> dict[str, Any]:
        kernel, data_term = torch.rand(2, batch, 1, 3, 3)
        weights, biases = layers_of(2, 2, 1)
        factors = ext.HQSFactors(data_term, torch.rand(batch, 1, 6, 4))
        numbers = {"level": torch.rand(batch), "relative": True, "iterations": 2}
        return {"kernel": kernel, "factors": factors, "weights": weights, "biases": biases} | numbers

    fuzz(ext.hqs_m_step, valid)
