from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import reference

from .fuzzing import fuzz

SHAPE = (3, 4, 5, 6)


@pytest.fixture
def latents() -> dict[str, torch.Tensor]:
    z_t, z0, noise = torch.randn(3, *SHAPE, dtype=torch.float64)
    abar_t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    abar_prev = torch.tensor([0.2, 1.0, 0.95], dtype=torch.float64)
    return {"z_t": z_t, "z0": z0, "abar_t": abar_t, "abar_prev": abar_prev, "noise": noise}


def random_arguments(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    z_t, z0, noise = torch.randn(3, *shape).to(dtype)
    abar_t = torch.rand(shape[0], dtype=torch.float64) * 0.9 + 0.05
    abar_prev = abar_t + (1 - abar_t) * torch.rand(shape[0], dtype=torch.float64)
    fresh = torch.rand(shape[0])
    return {"z_t": z_t, "z0": z0, "abar_t": abar_t, "abar_prev": abar_prev, "noise": noise, "fresh": fresh}


def test_latent_is_the_literal_formula_of_each_sample(latents):
    fresh = torch.tensor([0.0, 0.3, 1.0])
    actual = ext.renoise(**latents, fresh=fresh)
    for b in range(3):
        now, prev, share = (float(v[b]) for v in (latents["abar_t"], latents["abar_prev"], fresh))
        direction = (latents["z_t"][b] - math.sqrt(now) * latents["z0"][b]) / math.sqrt(1 - now)
        mixed = math.sqrt(1 - share) * direction + math.sqrt(share) * latents["noise"][b]
        expected = math.sqrt(prev) * latents["z0"][b] + math.sqrt(1 - prev) * mixed
        torch.testing.assert_close(actual[b], expected)


def test_one_share_is_that_of_every_sample(latents):
    torch.testing.assert_close(
        ext.renoise(**latents, fresh=0.5), ext.renoise(**latents, fresh=torch.full((3,), 0.5))
    )


def test_without_fresh_noise_it_is_the_ddim_step(latents):
    """Where z0 is the clean prediction itself, re-noising along the old direction is DDIM with eta = 0."""
    eps = torch.randn(SHAPE, dtype=torch.float64)
    z_prev, z0 = ext.dps_step(latents["z_t"], eps, latents["abar_t"], latents["abar_prev"])
    torch.testing.assert_close(ext.renoise(**latents | {"z0": z0}, fresh=0.0), z_prev)


# On both sides of a thread's share (65536 items), odd, without more than a batch, empty.
@pytest.mark.usefixtures("poisoned", "backend")
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (7, 3, 7, 5), (3, 4, 150, 150), (2,), (0, 4, 8, 8)])
def test_single_precision_is_close_to_double(shape, assert_close_per_sample):
    z_t, z0, noise = torch.randn(3, *shape, dtype=torch.float64)
    abar_t, abar_prev, fresh = torch.rand(3, shape[0], dtype=torch.float64) * 0.9 + 0.05
    actual = ext.renoise(z_t.float(), z0.float(), abar_t, abar_prev, noise.float(), fresh)
    # Measured: 1e-7.
    expected = reference.renoise(z_t, z0, abar_t, abar_prev, noise, fresh)
    assert_close_per_sample(actual, expected, 1e-6)


@pytest.mark.usefixtures("backend")
def test_layout_and_number_of_threads_do_not_matter(on_every_number_of_threads):
    z_t, z0, noise = torch.randn(3, 4, 4, 150, 150)
    abar_t, abar_prev = torch.rand(2, 4)
    first, *others = on_every_number_of_threads(lambda: (ext.renoise(z_t, z0, abar_t, abar_prev, noise, 0.5),))
    for other in others:
        assert torch.equal(other[0], first[0])
    strided = (value.to(memory_format=torch.channels_last) for value in (z_t, z0, noise))
    z_t, z0, noise = strided
    expanded = abar_t.double().repeat_interleave(2)[::2]
    actual = ext.renoise(z_t, z0, expanded, abar_prev, noise.mT.contiguous().mT, 0.5)
    assert actual.is_contiguous()
    torch.testing.assert_close(actual, first[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_registration(latents, dtype):
    given = [value.to(dtype) if value.dim() > 1 else value for value in latents.values()]
    torch.library.opcheck(torch.ops.latentdem.renoise.default, (*given, torch.rand(3)))


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(latents, compiler):
    def step(z_t: torch.Tensor) -> torch.Tensor:
        return ext.renoise(**latents | {"z_t": 2 * z_t}, fresh=0.5)

    compiled = torch.compile(step, fullgraph=True, backend=compiler)
    torch.testing.assert_close(compiled(latents["z_t"]), step(latents["z_t"]))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (7, 3, 7, 5), (2, 4, 33, 31), (2,), (0, 4, 8, 8)])
def test_native_result_equals_the_reference(native, relative_error, shape, dtype):
    if native.name == "cpp" and dtype == torch.float16:
        pytest.skip("the C++ loop does not take half precision")
    given = random_arguments(shape, dtype)
    result = ext.renoise(**{key: value.to(native.device) for key, value in given.items()})
    expected = reference.renoise(**{key: value.double() for key, value in given.items()})
    assert result.dtype == dtype
    assert relative_error(result, expected) < (1e-6 if dtype == torch.float32 else 1e-3)


def test_native_half_precision_errs_at_most_twice_as_much_as_pytorch(native, relative_error):
    if native.name == "cpp":
        pytest.skip("the C++ loop does not take half precision")
    given = random_arguments((7, 3, 11, 5), torch.float16)
    result = ext.renoise(**{key: value.to(native.device) for key, value in given.items()})
    exact = reference.renoise(**{key: value.float() for key, value in given.items()})
    assert relative_error(result, exact) <= 2 * relative_error(reference.renoise(**given), exact)


def test_half_precision_only_rounds_the_result(latents):
    half = {k: v.half() if v.dim() > 1 else v for k, v in latents.items()}
    actual = ext.renoise(**half, fresh=0.5)
    expected = ext.renoise(**{k: v.double() for k, v in half.items()}, fresh=0.5)
    assert actual.dtype == torch.float16
    torch.testing.assert_close(actual.double(), expected, rtol=1.01 * 2**-11, atol=1e-5)


def test_bad_arguments_are_named(latents):
    with pytest.raises(ValueError, match=r"fresh must be between 0 and 1, not 1\.5"):
        ext.renoise(**latents, fresh=1.5)
    with pytest.raises(ValueError, match=r"fresh must have shape \(3,\)"):
        ext.renoise(**latents, fresh=torch.zeros(2))
    with pytest.raises(TypeError, match="noise must be of dtype float64, not float32"):
        ext.renoise(**latents | {"noise": latents["noise"].float()}, fresh=0.5)
    with pytest.raises(TypeError, match="abar_prev must be a tensor, not float"):
        ext.renoise(**latents | {"abar_prev": 0.5}, fresh=0.5)
    with pytest.raises(TypeError, match="fresh must be a number, not str"):
        ext.renoise(**latents, fresh="half")
    with pytest.raises(ValueError, match="z0 requires a gradient, which renoise does not compute: detach it"):
        ext.renoise(**latents | {"z0": latents["z0"].requires_grad_()}, fresh=0.5)


def test_arguments_of_every_kind_are_taken_or_refused_by_name():
    def valid(batch: int) -> dict[str, Any]:
        latents = dict(zip(("z_t", "z0", "noise"), torch.rand(3, batch, 2, 3, 4), strict=True))
        abar_t, abar_prev = 0.05 + 0.9 * torch.rand(2, batch)
        return latents | {"abar_t": abar_t, "abar_prev": abar_prev, "fresh": 0.5}

    fuzz(ext.renoise, valid)
