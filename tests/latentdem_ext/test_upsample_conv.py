from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

from .fuzzing import fuzz

# (B, C, H, W), O: single pixels and rows, odd sizes, channels that fill no tile of a matrix unit and that do.
SHAPES = [((1, 1, 1, 1), 1), ((1, 3, 1, 4), 2), ((7, 4, 3, 2), 3), ((2, 3, 5, 7), 20), ((1, 20, 9, 6), 33)]
LARGE = [((1, 64, 33, 70), 64), ((2, 130, 17, 9), 128)]


def arguments(
    shape: tuple[int, ...],
    outputs: int,
    dtype: torch.dtype,
    device: str,
    channels_last: bool,
    biased: bool = True,
) -> tuple[Tensor, Tensor, Tensor | None]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(shape).to(device, dtype).contiguous(memory_format=layout)
    weight = (torch.randn(outputs, shape[1], 3, 3) / (3 * shape[1] ** 0.5)).to(device, dtype)
    bias = torch.randn(outputs).to(device, dtype) if biased else None
    return x.requires_grad_(), weight.requires_grad_(), bias


def results(function, x: Tensor, weight: Tensor, bias: Tensor | None, towards: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of x and weight."""
    y = function(x, weight, bias)
    return (y, *torch.autograd.grad(y, (x, weight), towards.to(y)))


def widened(given: tuple[Tensor, Tensor, Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    return [v if v is None else v.detach().cpu().to(dtype).requires_grad_(v.requires_grad) for v in given]


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
def test_operation_is_the_sum_over_taps(height, width, batch):
    x = torch.randn(batch, 3, height, width, dtype=torch.float64)
    weight, bias = torch.randn(2, 3, 3, 3, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    expected = literal_upsample_conv(x, weight, bias)
    torch.testing.assert_close(ext.upsample_conv(x, weight, bias), expected)
    torch.testing.assert_close(reference.upsample_conv(x, weight, bias), expected)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "outputs"), SHAPES + LARGE)
def test_native_equals_the_reference(native, relative_error, shape, outputs, channels_last):
    if native.interpreted and (shape, outputs) in LARGE:
        pytest.skip("too large for the interpreter")
    given = arguments(shape, outputs, torch.float32, native.device, channels_last, biased=outputs != 20)
    towards = torch.randn(shape[0], outputs, 2 * shape[2], 2 * shape[3], dtype=torch.float64)
    actual = results(ext.upsample_conv, *given, towards)
    expected = results(reference.upsample_conv, *widened(given, torch.float64), towards)
    for value, reference_value in zip(actual[:2], expected[:2], strict=True):
        assert relative_error(value, reference_value) < 1e-5  # measured: 4e-7
        if channels_last and min(shape[1], outputs) > 1 and shape[2:] != (1, 1):
            assert value.is_contiguous(memory_format=torch.channels_last)
        elif not channels_last:
            assert value.is_contiguous()
    assert relative_error(actual[2], expected[2]) < 1e-5


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "outputs"), [((2, 24, 7, 9), 20), ((1, 128, 8, 8), 48)])
def test_half_precision_errs_at_most_twice_as_much_as_pytorch(
    native, relative_error, dtype, channels_last, shape, outputs
):
    if native.interpreted and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter does not multiply bfloat16")
    given = arguments(shape, outputs, dtype, native.device, channels_last)
    towards = torch.randn(shape[0], outputs, 2 * shape[2], 2 * shape[3]).to(dtype)
    actual = results(ext.upsample_conv, *given, towards)
    exact = results(reference.upsample_conv, *widened(given, torch.float32), towards.float())
    plain = results(reference.upsample_conv, *widened(given, dtype), towards)
    for value, true, rounded in zip(actual, exact, plain, strict=True):
        assert value.dtype == dtype
        assert relative_error(value, true) <= 2 * relative_error(rounded, true)


def test_half_precision_with_float32_weights_errs_at_most_twice_as_much_as_pytorch(native, relative_error):
    dtype = torch.bfloat16 if native.name == "cpp" else torch.float16
    x, weight, bias = arguments((2, 24, 7, 9), 20, torch.float32, native.device, True)
    half = x.detach().to(dtype).requires_grad_()
    towards = torch.randn(2, 20, 14, 18).to(dtype)
    actual = results(ext.upsample_conv, half, weight, bias, towards)
    exact = results(reference.upsample_conv, *widened((half, weight, bias), torch.float32), towards.float())
    plain = results(reference.upsample_conv, *widened((half, weight, bias), dtype), towards)
    assert [value.dtype for value in actual] == [dtype, dtype, torch.float32]
    for value, true, rounded in zip(actual, exact, plain, strict=True):
        assert relative_error(value, true) <= 2 * relative_error(rounded, true)


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_autocast_does_not_change_the_result(backend):
    if not ext.backends()[backend].available:
        pytest.skip(ext.backends()[backend].reason)
    given = arguments((2, 3, 5, 4), 4, torch.float32, "cpu", False)
    towards = torch.randn(2, 4, 10, 8)
    with ext.use_backend(backend):
        expected = results(ext.upsample_conv, *given, towards)
        with torch.autocast("cpu", torch.bfloat16):
            actual = results(ext.upsample_conv, *given, towards)
    for value, same in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_extreme_values(native, relative_error, dtype):
    x, weight, bias = arguments((2, 16, 6, 5), 16, dtype, native.device, False)
    for scale in (0.0, 1e4, 1e-6 if dtype == torch.float32 else 1e-2):
        scaled = (x.detach().clamp(-3, 3) * scale).to(dtype)
        actual = ext.upsample_conv(scaled, weight / 2, bias)
        expected = reference.upsample_conv(scaled.double(), weight.double() / 2, bias.double())
        assert relative_error(actual, expected) < (1e-5 if dtype == torch.float32 else 1e-2)


def test_layout_of_the_arguments_does_not_matter(native, relative_error):
    x, weight, bias = arguments((2, 6, 8, 9), 5, torch.float32, native.device, False)
    expected = reference.upsample_conv(*widened((x, weight, bias), torch.float64))
    strided = (
        x.detach().mT.contiguous().mT,
        weight.detach().contiguous(memory_format=torch.channels_last),
        bias.repeat_interleave(2)[::2],
    )
    actual = ext.upsample_conv(*strided)
    assert actual.is_contiguous()
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5)])
def test_nothing_comes_from_nothing(shape):
    x = torch.zeros(shape).requires_grad_()
    y = ext.upsample_conv(x, torch.randn(4, 3, 3, 3), torch.randn(4))
    assert y.shape == (shape[0], 4, 2 * shape[2], 2 * shape[3])
    y.sum().backward()
    assert x.grad.shape == shape


@pytest.mark.parametrize("biased", [True, False])
def test_gradients(biased):
    given = arguments((2, 3, 3, 2), 4, torch.float64, "cpu", False, biased)
    if biased:
        given[2].requires_grad_()
    assert torch.autograd.gradcheck(ext.upsample_conv, given)


def test_requested_reference_runs_the_definition(monkeypatch):
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 3, 3)
    calls = []
    monkeypatch.setattr(
        reference, "upsample_conv", lambda *given: calls.append(given) or torch.zeros(1, 2, 6, 6)
    )
    ext.upsample_conv(x, weight)
    assert not calls
    with ext.use_backend("reference"):
        ext.upsample_conv(x, weight)
    assert calls


def test_requested_reference_has_the_gradients_of_the_definition(relative_error):
    x, weight, bias = arguments((2, 3, 5, 4), 4, torch.float64, "cpu", False)
    towards = torch.randn(2, 4, 10, 8)
    with ext.use_backend("reference"):
        actual = results(ext.upsample_conv, x, weight, bias, towards)
    for value, expected in zip(actual, results(reference.upsample_conv, x, weight, bias, towards), strict=True):
        assert relative_error(value, expected) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_registration(dtype, channels_last):
    given = arguments((2, 3, 4, 5), 4, dtype, "cpu", channels_last)
    torch.library.opcheck(torch.ops.latentdem.upsample_conv.default, given)
    grad = torch.randn(2, 4, 8, 10).to(dtype)
    if channels_last:
        grad = grad.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.library.opcheck(
            torch.ops.latentdem.upsample_conv_input_gradient.default, (grad, given[1].detach())
        )


@pytest.mark.slow
def test_compiles_as_one_graph():
    x, weight, bias = arguments((2, 3, 4, 5), 4, torch.float32, "cpu", False)
    towards = torch.randn(2, 4, 8, 10)

    def operation(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return ext.upsample_conv(2 * x, weight, bias) + 1

    compiled = torch.compile(operation, fullgraph=True)
    for _ in range(2):
        actual = results(compiled, x, weight, bias, towards)
        for value, expected in zip(actual, results(operation, x, weight, bias, towards), strict=True):
            torch.testing.assert_close(value, expected)
        with torch.no_grad():
            weight.mul_(-0.5)  # the folded weight must follow


def test_bad_arguments_are_named():
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3)
    with pytest.raises(ValueError, match=r"weight must have shape \(3, 2, 3, 3\)"):
        ext.upsample_conv(x, weight[..., :2])
    with pytest.raises(ValueError, match=r"bias must have shape \(3,\)"):
        ext.upsample_conv(x, weight, torch.zeros(2))
    with pytest.raises(TypeError, match="weight must be of dtype float32, not float64"):
        ext.upsample_conv(x, weight.double())
    with pytest.raises(ValueError, match="weight is on meta, but x is on cpu"):
        ext.upsample_conv(x, weight.to("meta"))


def test_arguments_of_every_kind_are_taken_or_refused_by_name():
    def valid(batch: int) -> dict[str, Any]:
        return {"x": torch.rand(batch, 2, 3, 4), "weight": torch.rand(3, 2, 3, 3), "bias": torch.rand(3)}

    fuzz(ext.upsample_conv, valid)
