"""Priors of diffusers on a stand-in for a GPU: nothing waits, and a timestep may be a tensor there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from latentdem import DiffusersPrior

from ...stand_in import fetch, put, stand_in_device

LAYOUTS = ["sd15", "sd21", "sdxl", "ldm_vq4"]  # sd21 predicts v
Scene = Callable[..., Tensor]
Load = Callable[..., DiffusersPrior]


def on_device(prior: DiffusersPrior) -> DiffusersPrior:
    """A copy on the stand-in."""
    prior = copy.deepcopy(prior)
    for network in (prior.vae, prior.unet):
        put(network)
    for condition in prior._conditions:
        for name, value in vars(condition).items():
            object.__setattr__(condition, name, put(value))
    prior.latents._scale, prior.latents._shift = put(prior.latents._scale), put(prior.latents._shift)
    return prior


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, load: Load, request: pytest.FixtureRequest, scene: Scene, layout: str
) -> None:
    prior, x = load(request.getfixturevalue(layout)), scene(16, 24)
    z = prior.encode(x)
    expected = z, prior.predict_noise(z, 500), prior.decode(z, 16, 24)
    with stand_in_device(monkeypatch) as waits, torch.no_grad():
        moved, there = on_device(prior), put(z)
        found = moved.encode(put(x)), moved.predict_noise(there, 500), moved.decode(there, 16, 24)
        assert not waits
        found += (moved.predict_noise(there, put(torch.tensor(500))),)
        moved.predict_noise(there, put(torch.tensor(400)))
    copied_once = [("to the device", "parametrization._shares")] if layout == "sd21" else []
    assert waits == copied_once
    for one, other in zip(found, (*expected, expected[1]), strict=True):
        torch.testing.assert_close(fetch(one), other, atol=1e-4, rtol=1e-4)


def test_weights_of_a_u_net_are_channels_last(monkeypatch: pytest.MonkeyPatch, load: Load, sd15: Path) -> None:
    """On a GPU; on a CPU they stay as they are."""
    prior = load(sd15)
    assert prior.unet.conv_in.weight.is_contiguous()
    with stand_in_device(monkeypatch):
        unet = put(copy.deepcopy(prior.unet))
        DiffusersPrior(copy.deepcopy(prior.vae), unet, DDIMScheduler(), prior._conditions[0])
    convolutions = [layer for layer in unet.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in convolutions)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tensor_is_a_timestep_as_a_number_is(load: Load, request: pytest.FixtureRequest, layout: str) -> None:
    prior = load(request.getfixturevalue(layout))
    z = torch.randn(2, *prior.latent_shape(16, 24))
    for t in (0, 500, 999):
        assert torch.equal(prior.predict_noise(z, torch.tensor(t)), prior.predict_noise(z, t))
