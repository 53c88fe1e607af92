"""diffusers itself: schedulers step as they did, and a pipeline's autoencoder is accelerated."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import diffusers as library
import pytest
import torch
from torch import nn

import latentdem_ext as ext
from latentdem_ext.integrations import IntegrationError, diffusers

SCHEDULERS = [library.DDIMScheduler, library.DDPMScheduler]


def scheduler_of(kind, steps=20, **options):
    scheduler = kind(**{"clip_sample": False, **options})
    scheduler.set_timesteps(steps)
    return scheduler


def walk(scheduler, eps, z, **options):
    """Every output of a whole run, the noise from a generator with a seed."""
    actual = []
    for t in scheduler.timesteps:
        generator = torch.Generator().manual_seed(int(t))
        out = scheduler.step(eps, t, z, generator=generator, **options)
        z = out.prev_sample
        actual += [out.prev_sample, out.pred_original_sample]
    return actual


@pytest.fixture
def tensors():
    return torch.randn(2, 3, 4, 8, 8)


def test_replaces_and_puts_back_the_very_objects():
    before = [vars(kind)["step"] for kind in SCHEDULERS]
    with diffusers.accelerate():
        for kind, original in zip(SCHEDULERS, before, strict=True):
            assert kind.step is not original
            assert inspect.signature(kind.step) == inspect.signature(original)
    assert [vars(kind)["step"] for kind in SCHEDULERS] == before


@pytest.mark.parametrize("options", [{}, {"eta": 0.3}, {"eta": 1.0}])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1000, 20])
def test_ddim(same, tensors, options, spacing, steps):
    scheduler = scheduler_of(library.DDIMScheduler, steps, timestep_spacing=spacing, set_alpha_to_one=False)
    scheduler.timesteps = torch.cat([scheduler.timesteps[:3], scheduler.timesteps[-7:]])
    expected = walk(scheduler, *tensors, **options)
    with diffusers.accelerate(), ext.record_backends() as used:
        actual = walk(scheduler, *tensors, **options)
    assert "dps_step" in used
    assert all(map(same, actual, expected))


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log"])
@pytest.mark.parametrize("steps", [1000, 7])
def test_ddpm(same, tensors, variance, steps):
    scheduler = scheduler_of(library.DDPMScheduler, steps, variance_type=variance)
    scheduler.timesteps = scheduler.timesteps[:: max(1, steps // 9)]
    expected = walk(scheduler, *tensors)
    with diffusers.accelerate(), ext.record_backends() as used:
        actual = walk(scheduler, *tensors)
    assert "dps_step" in used
    assert all(map(same, actual, expected))


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_return_types_and_gradients(same, with_gradients, tensors, kind):
    scheduler = scheduler_of(kind)

    def step(eps, z):
        torch.manual_seed(0)
        previous, clean = scheduler.step(eps, scheduler.timesteps[3], z, return_dict=False)
        return previous + clean

    expected, kept = with_gradients(step, *tensors), scheduler.step(tensors[0], 0, tensors[1])
    with diffusers.accelerate():
        actual, out = with_gradients(step, *tensors), scheduler.step(tensors[0], 0, tensors[1])
    assert type(out) is type(kept)
    assert all(map(same, actual, expected))


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize(
    "options",
    [
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
        {"clip_sample": True},
        {"thresholding": True},
    ],
)
def test_other_schedulers_step_as_before(tensors, kind, options):
    scheduler = scheduler_of(kind, **options)
    expected = walk(scheduler, *tensors)
    with diffusers.accelerate(), ext.record_backends() as used:
        actual = walk(scheduler, *tensors)
    assert not used
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("variance", ["fixed_large", "learned_range"])
def test_other_variances_step_as_before(tensors, variance):
    scheduler, (eps, z) = scheduler_of(library.DDPMScheduler, variance_type=variance), tensors
    eps = torch.cat([eps, eps.tanh()], 1) if variance == "learned_range" else eps
    expected = walk(scheduler, eps, z)
    with diffusers.accelerate():
        assert all(map(torch.equal, walk(scheduler, eps, z), expected))


def test_errors_are_those_of_diffusers(tensors):
    scheduler, (eps, z) = library.DDIMScheduler(clip_sample=False), tensors
    with diffusers.accelerate():
        with pytest.raises(ValueError, match="set_timesteps"):
            scheduler.step(eps, 10, z)
        scheduler.set_timesteps(5)
        with pytest.raises(ValueError, match="both generator and variance_noise"):
            scheduler.step(eps, 10, z, eta=1.0, variance_noise=eps, generator=torch.Generator())


def test_half_precision_is_rounded_once(tensors):
    scheduler, (eps, z) = scheduler_of(library.DDIMScheduler), tensors
    exact = scheduler.step(eps.half().double(), 500, z.half().double()).prev_sample
    theirs = scheduler.step(eps.half(), 500, z.half()).prev_sample
    with diffusers.accelerate():
        actual = scheduler.step(eps.half(), 500, z.half()).prev_sample
    assert actual.dtype == torch.float16
    assert (actual - exact).norm() <= (theirs - exact).norm()


def small_vae():
    vae = library.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    return vae.eval().requires_grad_(False)


def test_pipeline(same):
    """Its autoencoder and its own scheduler, not those of others."""
    pipe = SimpleNamespace(vae=small_vae(), scheduler=scheduler_of(library.DDIMScheduler))
    other, z = library.DDIMScheduler(), torch.randn(1, 4, 8, 8)
    weights = {name: value.clone() for name, value in pipe.vae.state_dict().items()}
    expected = pipe.vae.decode(z).sample
    with diffusers.accelerate(pipe):
        assert "step" in vars(pipe.scheduler)
        assert "step" not in vars(other)
        with ext.record_backends() as used:
            assert same(pipe.vae.decode(z).sample, expected)
        assert {"group_norm_silu", "upsample_conv"} <= set(used)
    assert "step" not in vars(pipe.scheduler)
    assert torch.equal(pipe.vae.decode(z).sample, expected)
    assert all(torch.equal(value, weights[name]) for name, value in pipe.vae.state_dict().items())


def test_one_scheduler():
    scheduler = scheduler_of(library.DDPMScheduler)
    with diffusers.accelerate(scheduler):
        assert "step" in vars(scheduler)
    assert "step" not in vars(scheduler)


def test_what_cannot_be_accelerated_is_refused():
    pipe = SimpleNamespace(vae=nn.Linear(2, 2), scheduler=scheduler_of(library.DDIMScheduler))
    with pytest.raises(IntegrationError, match="autoencoder of the pipeline cannot be accelerated"):
        diffusers.apply(pipe)
    assert "step" not in vars(pipe.scheduler)
    with pytest.raises(IntegrationError, match="nothing of diffusers to accelerate in EulerDiscreteScheduler"):
        diffusers.apply(library.EulerDiscreteScheduler())


def test_a_step_that_computes_something_else_is_left_alone(monkeypatch):
    plain = library.DDIMScheduler.step

    def step(
        self,
        model_output,
        timestep,
        sample,
        eta=0.0,
        use_clipped_model_output=False,
        generator=None,
        variance_noise=None,
        return_dict=True,
    ):
        rest = (eta, use_clipped_model_output, generator, variance_noise, return_dict)
        return plain(self, -model_output, timestep, sample, *rest)

    monkeypatch.setattr(library.DDIMScheduler, "step", step)
    step.__module__ = plain.__module__
    with pytest.raises(IntegrationError, match="computes something else"):
        diffusers.apply()
    assert library.DDIMScheduler.step is step
