from __future__ import annotations

import math

import pytest
import torch

import latentdem_ext as ext

SHAPE = (3, 4, 5, 6)


@pytest.fixture
def latents() -> dict[str, torch.Tensor]:
    z_t, z0, noise = torch.randn(3, *SHAPE, dtype=torch.float64)
    abar_t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    abar_prev = torch.tensor([0.2, 1.0, 0.95], dtype=torch.float64)
    return {"z_t": z_t, "z0": z0, "abar_t": abar_t, "abar_prev": abar_prev, "noise": noise}


def test_latent_is_the_literal_formula_of_each_sample(latents):
    fresh = torch.tensor([0.0, 0.3, 1.0])
    found = ext.renoise(**latents, fresh=fresh)
    for b in range(3):
        now, prev, share = (float(v[b]) for v in (latents["abar_t"], latents["abar_prev"], fresh))
        direction = (latents["z_t"][b] - math.sqrt(now) * latents["z0"][b]) / math.sqrt(1 - now)
        mixed = math.sqrt(1 - share) * direction + math.sqrt(share) * latents["noise"][b]
        expected = math.sqrt(prev) * latents["z0"][b] + math.sqrt(1 - prev) * mixed
        torch.testing.assert_close(found[b], expected)


def test_one_share_is_that_of_every_sample(latents):
    torch.testing.assert_close(
        ext.renoise(**latents, fresh=0.5), ext.renoise(**latents, fresh=torch.full((3,), 0.5))
    )


def test_without_fresh_noise_it_is_the_ddim_step(latents):
    """Where z0 is the clean prediction itself, re-noising along the old direction is DDIM with eta = 0."""
    eps = torch.randn(SHAPE, dtype=torch.float64)
    z_prev, z0 = ext.dps_step(latents["z_t"], eps, latents["abar_t"], latents["abar_prev"])
    torch.testing.assert_close(ext.renoise(**latents | {"z0": z0}, fresh=0.0), z_prev)


def test_half_precision_only_rounds_the_result(latents):
    half = {k: v.half() if v.dim() > 1 else v for k, v in latents.items()}
    found = ext.renoise(**half, fresh=0.5)
    expected = ext.renoise(**{k: v.double() for k, v in half.items()}, fresh=0.5)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), expected, rtol=1.01 * 2**-11, atol=1e-5)


def test_bad_arguments_are_named(latents):
    with pytest.raises(ValueError, match=r"fresh must be between 0 and 1, not 1\.5"):
        ext.renoise(**latents, fresh=1.5)
    with pytest.raises(ValueError, match=r"fresh must have shape \(3,\)"):
        ext.renoise(**latents, fresh=torch.zeros(2))
    with pytest.raises(TypeError, match="noise must be of dtype float64, not float32"):
        ext.renoise(**latents | {"noise": latents["noise"].float()}, fresh=0.5)
    with pytest.raises(TypeError, match="abar_prev must be a tensor, not float"):
        ext.renoise(**latents | {"abar_prev": 0.5}, fresh=0.5)
