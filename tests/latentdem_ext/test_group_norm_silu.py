from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

from .fuzzing import fuzz

Given = tuple[Tensor, int, Tensor, Tensor, float]
# (shape, groups). Planes and rows on both sides of a tile of the C++ loops (4096 values, 256 lanes), with and
# without a rest; channels beyond a tile; one and many groups; sequences, images, volumes.
SHAPES = [
    ((1, 32, 7, 5), 8),
    ((7, 3, 17, 16), 3),
    ((2, 6, 33, 31), 1),
    ((1, 130, 9, 8), 65),
    ((2, 12, 300), 4),
    ((1, 4, 3, 5, 6), 2),
    ((2, 12, 1, 1), 2),
    ((1, 5000, 3), 5),
    ((1, 130, 2, 3), 13),
]
LARGE = [((1, 64, 70, 71), 32), ((2, 96, 41, 43), 32)]  # several chunks of rows, several threads
SLOW_TO_INTERPRET = [*LARGE, ((1, 130, 9, 8), 65), ((1, 5000, 3), 5)]


def arguments(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, device: str, channels_last: bool
) -> Given:
    x = torch.randn(shape, dtype=torch.float64) * 3 + torch.randn(1, shape[1], *[1] * (len(shape) - 2))
    x = x.to(dtype).to(device)
    if channels_last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    weight, bias = torch.randn(2, shape[1], dtype=torch.float64).to(dtype).to(device)
    return x.requires_grad_(), groups, weight.clone().requires_grad_(), bias.clone().requires_grad_(), 1e-5


def results(function, given: Given, towards: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of x, weight and bias."""
    y = function(*given)
    return (y, *torch.autograd.grad(y, (given[0], given[2], given[3]), towards.to(y)))


def widened(given: Given, dtype: torch.dtype) -> Given:
    x, groups, weight, bias, eps = given
    wide = [value.detach().cpu().to(dtype).requires_grad_() for value in (x, weight, bias)]
    return wide[0], groups, wide[1], wide[2], eps


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_definition_normalises_each_group_of_each_sample(groups):
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64) * 3 + 2
    weight, bias = torch.randn(2, 6, dtype=torch.float64)
    actual = ext.group_norm_silu(x, groups, weight, bias, 1e-5)
    size = 6 // groups
    for b in range(3):
        for g in range(groups):
            part = x[b, g * size : (g + 1) * size]
            normal = (part - part.mean()) / (part.var(unbiased=False) + 1e-5).sqrt()
            for c in range(size):
                value = weight[g * size + c] * normal[c] + bias[g * size + c]
                torch.testing.assert_close(actual[b, g * size + c], value / (1 + (-value).exp()))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "groups"), SHAPES + LARGE)
def test_native_equals_the_reference(native, relative_error, shape, groups, channels_last):
    if native.interpreted and (shape, groups) in SLOW_TO_INTERPRET:
        pytest.skip("too large for the interpreter")
    given = arguments(shape, groups, torch.float32, native.device, channels_last)
    towards = torch.randn(shape, dtype=torch.float64)
    actual = results(ext.group_norm_silu, given, towards)
    expected = results(reference.group_norm_silu, widened(given, torch.float64), towards)
    assert actual[0].stride() == given[0].stride()
    assert actual[1].stride() == given[0].stride()
    for value, reference_value in zip(actual[:2], expected[:2], strict=True):
        assert relative_error(value, reference_value) < 1e-5  # measured: 2e-7
    for value, reference_value in zip(actual[2:], expected[2:], strict=True):
        assert relative_error(value[None], reference_value[None]) < 1e-5  # measured: 3e-7


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("shape", "groups"), [((2, 32, 5, 7), 8), ((1, 6, 20, 20), 1)])
def test_half_precision_errs_at_most_twice_as_much_as_pytorch(
    native, relative_error, dtype, channels_last, shape, groups
):
    if native.name == "cpp" and dtype == torch.float16:
        pytest.skip("the C++ loops do not take float16")
    given = arguments(shape, groups, dtype, native.device, channels_last)
    towards = torch.randn(shape, dtype=torch.float64).to(dtype)
    actual = results(ext.group_norm_silu, given, towards)
    exact = results(reference.group_norm_silu, widened(given, torch.float32), towards.float())
    plain = results(reference.group_norm_silu, widened(given, dtype), towards)
    for value, true, rounded in zip(actual, exact, plain, strict=True):
        assert value.dtype == dtype
        whole = (lambda t: t) if true.dim() > 1 else (lambda t: t[None])
        limit = 2 * relative_error(whole(rounded), whole(true))
        assert relative_error(whole(value), whole(true)) <= limit


def test_half_precision_with_float32_weights_errs_at_most_twice_as_much_as_pytorch(native, relative_error):
    dtype = torch.bfloat16 if native.name == "cpp" else torch.float16
    x, groups, weight, bias, eps = arguments((2, 32, 5, 7), 8, torch.float32, native.device, True)
    given = (x.detach().to(dtype).requires_grad_(), groups, weight, bias, eps)
    towards = torch.randn(x.shape).to(dtype)
    actual = results(ext.group_norm_silu, given, towards)
    exact = results(reference.group_norm_silu, widened(given, torch.float32), towards.float())
    plain = results(reference.group_norm_silu, widened(given, dtype), towards)
    assert [value.dtype for value in actual] == [dtype, dtype, torch.float32, torch.float32]
    for value, true, rounded in zip(actual[:2], exact[:2], plain[:2], strict=True):
        assert relative_error(value, true) <= 2 * relative_error(rounded, true)


@pytest.mark.parametrize("channels_last", [False, True])
def test_threads_do_not_change_a_bit(native, on_every_number_of_threads, channels_last):
    if native.name != "cpp":
        pytest.skip("only the C++ loops have threads")
    given = arguments((2, 64, 50, 51), 8, torch.float32, "cpu", channels_last)
    towards = torch.randn(2, 64, 50, 51)
    first, *others = on_every_number_of_threads(lambda: results(ext.group_norm_silu, given, towards))
    for other in others:
        assert all(torch.equal(value, expected) for value, expected in zip(other, first, strict=True))


def test_a_slice_is_taken_and_gives_a_contiguous_result(native, relative_error):
    x, groups, weight, bias, eps = arguments((2, 6, 8, 14), 2, torch.float32, native.device, False)
    part = x.detach()[..., 1::2]
    actual = ext.group_norm_silu(part, groups, weight[:6], bias.expand(6), eps)
    assert actual.is_contiguous()
    expected = reference.group_norm_silu(
        *(v.detach().double() if isinstance(v, Tensor) else v for v in (part, groups, weight, bias, eps))
    )
    assert relative_error(actual, expected) < 1e-6


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0e4, -3.0])
def test_a_constant_group_gives_the_bias(native, value, channels_last):
    x, groups, weight, bias, eps = arguments((2, 6, 9, 40), 2, torch.float32, native.device, channels_last)
    with torch.no_grad():
        actual = ext.group_norm_silu(torch.full_like(x, value), groups, weight, bias, eps)
    torch.testing.assert_close(
        actual, F.silu(bias)[None, :, None, None].expand_as(actual), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("offset", "scale"), [(1.0e4, 1.0), (0.0, 1.0e4), (0.0, 1.0e-6)])
def test_extreme_values(native, relative_error, offset, scale, channels_last):
    x, groups, weight, bias, eps = arguments((2, 8, 20, 30), 4, torch.float32, native.device, channels_last)
    given = ((x * scale + offset).detach().requires_grad_(), groups, weight, bias, eps)
    towards = torch.randn(x.shape, dtype=torch.float64)
    actual = results(ext.group_norm_silu, given, towards)
    expected = results(reference.group_norm_silu, widened(given, torch.float64), towards)
    # The mean is kept in float32: what it loses of 1e4 comes back in units of the standard deviation.
    limit = 1e-5 if offset == 0 else 1e-3
    for value, reference_value in zip(actual[:2], expected[:2], strict=True):
        assert relative_error(value, reference_value) < limit


def test_half_precision_does_not_overflow(native, relative_error):
    dtype = torch.bfloat16 if native.name == "cpp" else torch.float16
    x, groups, weight, bias, eps = arguments((2, 8, 20, 30), 4, dtype, native.device, False)
    x = (x.detach().float().clamp(-4, 4) * 1e4).to(dtype)
    actual = ext.group_norm_silu(x, groups, weight, bias, eps)
    expected = reference.group_norm_silu(x.double(), groups, weight.double(), bias.double(), eps)
    assert relative_error(actual, expected) < 1e-2


def test_exponential_is_accurate_everywhere(native):
    """mean 0 and a standard deviation of 2^-6 make u = 64 weight x exact: only the exponential errs."""
    x = torch.linspace(1.0, 85.0, 3000, dtype=torch.float64).float()
    x = torch.cat((x, -x)).view(1, 1, 60, 100).to(native.device)
    eps = 4096.0 - float(x.double().square().mean())
    weight, bias = torch.full((1,), 64.0, device=native.device), torch.zeros(1, device=native.device)
    actual = ext.group_norm_silu(x, 1, weight, bias, eps).double()
    u = x.double()
    error = (actual - u / (1 + (-u).exp())).abs() / (u / (1 + (-u).exp())).abs()
    # Measured: 2e-7 (C++), 8e-7 (Triton, where exp(-u) is 2^(-u / ln 2) and the product is rounded).
    assert error.max() < (1e-6 if native.name == "cpp" else 1e-5)


@pytest.mark.parametrize("weight", [1.0e4, -1.0e4])
def test_saturated_activations_stay_finite(native, weight):
    x = torch.randn(1, 4, 6, 50, device=native.device).requires_grad_()
    factor, bias = torch.full((4,), weight, device=native.device), torch.zeros(4, device=native.device)
    y = ext.group_norm_silu(x, 2, factor, bias, 1e-5)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 6, 4, 5), (2, 6, 0, 5)])
def test_nothing_comes_from_nothing(shape):
    x = torch.zeros(shape).requires_grad_()
    y = ext.group_norm_silu(x, 2, torch.ones(6), torch.ones(6))
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape


def test_gradients():
    x, groups, weight, bias, eps = arguments((2, 6, 3, 2), 3, torch.float64, "cpu", False)

    def operation(*values: Tensor) -> Tensor:
        return ext.group_norm_silu(values[0], groups, values[1], values[2], eps)

    assert torch.autograd.gradcheck(operation, (x, weight, bias))


def test_only_the_wanted_gradients(relative_error):
    x, groups, weight, bias, eps = arguments((2, 6, 3, 2), 3, torch.float32, "cpu", False)
    ext.group_norm_silu(x, groups, weight.detach(), bias.detach(), eps).sum().backward()
    expected = torch.autograd.grad(reference.group_norm_silu(x, groups, weight, bias, eps).sum(), x)[0]
    assert relative_error(x.grad, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_registration(dtype, channels_last):
    given = arguments((2, 6, 4, 5), 3, dtype, "cpu", channels_last)
    torch.library.opcheck(torch.ops.latentdem.group_norm_silu.default, given)
    with torch.no_grad():
        x, groups, weight, bias, eps = (v.detach() if isinstance(v, Tensor) else v for v in given)
        _, mean, rstd = torch.ops.latentdem.group_norm_silu(x, groups, weight, bias, eps)
        torch.library.opcheck(
            torch.ops.latentdem.group_norm_silu_backward.default,
            (torch.randn_like(x), x, groups, weight, bias, mean, rstd),
        )


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_compiles_as_one_graph(channels_last):
    given = arguments((2, 6, 4, 5), 3, torch.float32, "cpu", channels_last)
    towards = torch.randn(2, 6, 4, 5)

    def operation(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return ext.group_norm_silu(2 * x, groups, weight, bias, eps) + 1

    compiled = results(torch.compile(operation, fullgraph=True), given, towards)
    for value, expected in zip(compiled, results(operation, given, towards), strict=True):
        torch.testing.assert_close(value, expected)


def test_requested_backend_that_does_not_take_the_dtype_says_why():
    if not ext.backends()["cpp"].available:
        pytest.skip(ext.backends()["cpp"].reason)
    x, ones = torch.zeros(1, 6, 4, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    with ext.use_backend("cpp"), pytest.raises(RuntimeError, match="x is float64, not float32 or bfloat16"):
        ext.group_norm_silu(x, 2, ones, ones)


def test_bad_arguments_are_named():
    x, ones = torch.zeros(1, 6, 4), torch.ones(6)
    with pytest.raises(ValueError, match="groups must divide the 6 channels of x, it is 4"):
        ext.group_norm_silu(x, 4, ones, ones)
    with pytest.raises(ValueError, match=r"bias must have shape \(6,\)"):
        ext.group_norm_silu(x, 2, ones, ones[:3])
    with pytest.raises(TypeError, match="weight must be of dtype float32, not float64"):
        ext.group_norm_silu(x, 2, ones.double(), ones)
    with pytest.raises(ValueError, match="weight is on meta, but x is on cpu"):
        ext.group_norm_silu(x, 2, ones.to("meta"), ones)
    with pytest.raises(ValueError, match="x must have a channel dimension"):
        ext.group_norm_silu(ones, 2, ones, ones)


def test_arguments_of_every_kind_are_taken_or_refused_by_name():
    def valid(batch: int) -> dict[str, Any]:
        weight, bias = torch.rand(2, 4)
        return {"x": torch.rand(batch, 4, 3, 2), "groups": 2, "weight": weight, "bias": bias, "eps": 1e-6}

    fuzz(ext.group_norm_silu, valid)
