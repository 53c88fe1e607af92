"""PSLD: the same step with one measurement instead of two."""

from __future__ import annotations

import inspect
import sys
from functools import wraps

import pytest
import torch
from torch import nn

import latentdem_ext as ext
from latentdem_ext.integrations import IntegrationError, psld

from .stand_ins import psld as target


class Model:
    """A small network for each part of a latent diffusion model."""

    def __init__(self):
        self.eps = nn.Conv2d(4, 4, 3, padding=1)
        self.encode_first_stage = nn.Conv2d(3, 4, 2, 2)
        self.differentiable_decode_first_stage = nn.ConvTranspose2d(4, 3, 2, 2)

    def apply_model(self, z, t, c):
        return torch.tanh(self.eps(z)) + c + 0.001 * t.view(-1, 1, 1, 1)

    def get_first_stage_encoding(self, code):
        return 0.2 * code


class Operator:
    """Counts how often it measures."""

    count = 0

    def forward(self, data, mask=1.0):
        self.count += 1
        return mask * torch.nn.functional.avg_pool2d(data, 3, 1, 1)

    def transpose(self, data):
        return data


@pytest.fixture
def problem():
    """(eta, options) -> the results of a step from given random numbers, and how often it measured."""
    model, x, y = Model(), torch.randn(2, 4, 6, 5), torch.randn(2, 3, 12, 10)
    alphas, before = torch.tensor([0.99, 0.6, 0.05]), torch.tensor([0.999, 0.7, 0.06])

    def step(eta=0.0, index=1, **options):
        torch.manual_seed(0)
        operator = Operator()
        sampler = target.DDIMSampler(model, alphas, before, eta)
        settings = {
            "operator": operator,
            "noiser": lambda m: m + 0.02 * torch.randn_like(m),
            "gamma": 0.1,
            "omega": 1,
        }
        actual = sampler.p_sample_ddim(
            x,
            torch.full((2, 4, 1, 1), 0.1),
            torch.full((2,), 500),
            index,
            measurements=y,
            **settings,
            **options,
        )
        return actual, operator.count

    return step


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"general_inverse": True},
        {"inpainting": True, "ip_mask": torch.ones(12, 10).tril()},
        {
            "general_inverse": True,
            "unconditional_guidance_scale": 7.5,
            "unconditional_conditioning": torch.zeros(2, 4, 1, 1),
            "temperature": 0.5,
            "repeat_noise": True,
        },
    ],
)
def test_step(same, problem, capsys, eta, index, options):
    expected, measured_before = problem(eta, index, **options)
    printed = capsys.readouterr().out
    with psld.accelerate(target), ext.record_backends() as used:
        actual, measured = problem(eta, index, **options)
    assert "dps_step" in used
    assert all(map(same, actual, expected))
    assert (measured_before, measured) == (2, 1)
    line = capsys.readouterr().out
    assert line.startswith("Loss: ")
    assert float(line.split()[1]) == pytest.approx(float(printed.split()[1]), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"general_inverse": True, "noise_dropout": 0.5}])
def test_other_steps_are_the_original(problem, options):
    expected, _ = problem(0.5, **options)
    with psld.accelerate(target), ext.record_backends() as used:
        actual, _ = problem(0.5, **options)
    assert not used
    assert all(map(torch.equal, actual, expected))


def test_replaces_and_puts_back_the_very_objects(monkeypatch, snapshot, changed):
    monkeypatch.setitem(sys.modules, "ldm.models.diffusion.psld", target)
    before = snapshot(target)
    with psld.accelerate():
        assert changed(target, before) == {"DDIMSampler.p_sample_ddim"}
    assert not changed(target, before)


def test_sampler_that_moves_a_kernel_is_refused(monkeypatch):
    """That of the LatentDEM release has further parameters."""
    names = list(inspect.signature(target.DDIMSampler.p_sample_ddim).parameters.values())
    further = inspect.Parameter("kernel_denoiser", inspect.Parameter.KEYWORD_ONLY, default=None)

    def p_sample_ddim(*args, **kwargs):
        raise AssertionError

    p_sample_ddim.__signature__ = inspect.Signature([*names, further])
    monkeypatch.setattr(target.DDIMSampler, "p_sample_ddim", p_sample_ddim)
    with pytest.raises(IntegrationError, match="other parameters"):
        psld.apply(target)


def test_sampler_that_computes_something_else_is_left_alone(monkeypatch, snapshot, changed):
    """Here one that glues twice as hard."""
    plain = target.DDIMSampler.p_sample_ddim

    @wraps(plain)
    def p_sample_ddim(*args, gamma, **kwargs):
        return plain(*args, gamma=2 * gamma, **kwargs)

    monkeypatch.setattr(target.DDIMSampler, "p_sample_ddim", p_sample_ddim)
    before = snapshot(target)
    with pytest.raises(IntegrationError, match="computes something else"):
        psld.apply(target)
    assert not changed(target, before)
