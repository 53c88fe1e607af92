from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import _triton_ops, reference

SHAPES = [(1, 4, 8, 8), (7, 3, 7, 5), (2, 4, 33, 31), (2,), (0, 4, 8, 8)]


def latents(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    z_t, z0, noise = torch.randn(3, *shape).to(dtype)
    abar_t = torch.rand(shape[0], dtype=torch.float64) * 0.9 + 0.05
    abar_prev = abar_t + (1 - abar_t) * torch.rand(shape[0], dtype=torch.float64)
    fresh = torch.rand(shape[0])
    return {"z_t": z_t, "z0": z0, "abar_t": abar_t, "abar_prev": abar_prev, "noise": noise, "fresh": fresh}


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_renoise_equals_the_reference(native, relative_error, shape, dtype):
    if native.name != "triton":
        pytest.skip("a test of the Triton kernel")
    given = latents(shape, dtype)
    found = ext.renoise(**{key: value.to(native.device) for key, value in given.items()})
    expected = reference.renoise(**{key: value.double() for key, value in given.items()})
    assert found.dtype == dtype
    assert relative_error(found, expected) < (1e-6 if dtype == torch.float32 else 1e-3)


def test_renoise_of_half_precision_errs_at_most_twice_as_much_as_pytorch(native, relative_error):
    if native.name != "triton":
        pytest.skip("a test of the Triton kernel")
    given = latents((7, 3, 11, 5), torch.float16)
    found = ext.renoise(**{key: value.to(native.device) for key, value in given.items()})
    exact = reference.renoise(**{key: value.float() for key, value in given.items()})
    assert relative_error(found, exact) <= 2 * relative_error(reference.renoise(**given), exact)


def test_refusal_names_what_it_does_not_take():
    assert (
        _triton_ops.refusal("z_t", torch.zeros(1).double())
        == "z_t is float64, not float16, bfloat16 or float32"
    )
    assert _triton_ops.refusal("x", torch.zeros(1)) == "x is on cpu, not on a CUDA device"


def test_cpu_tensors_are_taken_on_request_only(native):
    if not native.interpreted:
        pytest.skip("a test of Triton's interpreter")
    assert _triton_ops.refusal("x", torch.zeros(1)) == ""
    with ext.use_backend("cpp"):
        assert _triton_ops.refusal("x", torch.zeros(1)) != ""
