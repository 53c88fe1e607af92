from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference


def literal_upsample_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Every tap of every output pixel, one by one."""
    batch, _, height, width = x.shape
    out = bias[None, :, None, None].repeat(batch, 1, 2 * height, 2 * width)
    for i in range(2 * height):
        for j in range(2 * width):
            for a in range(3):
                for b in range(3):
                    row, column = i + a - 1, j + b - 1
                    if 0 <= row < 2 * height and 0 <= column < 2 * width:
                        out[:, :, i, j] += x[:, :, row // 2, column // 2] @ weight[:, :, a, b].T
    return out


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4), (3, 2), (4, 5)])
@pytest.mark.parametrize("batch", [1, 3])
def test_upsample_conv_is_the_sum_over_taps(height, width, batch):
    x = torch.randn(batch, 3, height, width, dtype=torch.float64)
    weight, bias = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    expected = literal_upsample_conv(x, weight, bias)
    torch.testing.assert_close(ext.upsample_conv(x, weight, bias), expected)
    torch.testing.assert_close(reference.upsample_conv(x, weight, bias), expected)


def test_upsample_conv_without_bias_and_its_gradients():
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    found, expected = ext.upsample_conv(x, weight), reference.upsample_conv(x, weight)
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(found)
    for gradient, reference_gradient in zip(
        torch.autograd.grad(found, (x, weight), towards),
        torch.autograd.grad(expected, (x, weight), towards),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference_gradient)


def test_requested_reference_runs_the_definition(monkeypatch):
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 3, 3)
    marker = torch.zeros(1)
    monkeypatch.setattr(reference, "upsample_conv", lambda *_: marker)
    assert ext.upsample_conv(x, weight) is not marker
    with ext.use_backend("reference"):
        assert ext.upsample_conv(x, weight) is marker


def test_upsample_conv_names_bad_arguments():
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3)
    with pytest.raises(ValueError, match=r"weight must have shape \(3, 2, 3, 3\)"):
        ext.upsample_conv(x, weight[..., :2])
    with pytest.raises(ValueError, match=r"bias must have shape \(3,\)"):
        ext.upsample_conv(x, weight, torch.zeros(2))
    with pytest.raises(TypeError, match="weight must be of dtype float32, not float64"):
        ext.upsample_conv(x, weight.double())


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_silu_normalises_each_group_of_each_sample(groups):
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64) * 3 + 2
    weight, bias = torch.randn(2, 6, dtype=torch.float64)
    found = ext.group_norm_silu(x, groups, weight, bias, 1e-5)
    size = 6 // groups
    for b in range(3):
        for g in range(groups):
            part = x[b, g * size : (g + 1) * size]
            normal = (part - part.mean()) / (part.var(unbiased=False) + 1e-5).sqrt()
            for c in range(size):
                value = weight[g * size + c] * normal[c] + bias[g * size + c]
                torch.testing.assert_close(found[b, g * size + c], value / (1 + (-value).exp()))


def test_group_norm_silu_names_bad_arguments():
    x, ones = torch.zeros(1, 6, 4), torch.ones(6)
    with pytest.raises(ValueError, match="groups must divide the 6 channels of x, it is 4"):
        ext.group_norm_silu(x, 4, ones, ones)
    with pytest.raises(ValueError, match=r"bias must have shape \(6,\)"):
        ext.group_norm_silu(x, 2, ones, ones[:3])
    with pytest.raises(ValueError, match="x must have a channel dimension"):
        ext.group_norm_silu(ones, 2, ones, ones)
