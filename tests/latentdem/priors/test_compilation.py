"""Networks of priors that PyTorch compiles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import latentdem
from latentdem import UserError
from latentdem.priors import EmbeddedPrior, load_prior
from latentdem.priors.compilation import compile_networks

Scene = Callable[..., Tensor]
CPU = torch.device("cpu")


def everything(prior: Any, x: Tensor) -> tuple[Tensor, ...]:
    z = prior.encode(x)
    return z, prior.predict_noise(z, 500), prior.decode(z, *x.shape[-2:])


def check(prior: Any, x: Tensor) -> None:
    """Its results are those from before, by compiled networks."""
    expected = everything(prior, x)
    prior = copy.deepcopy(prior)
    compile_networks(prior, CPU)
    assert all(network._compiled_call_impl is not None for network in prior.networks)
    for one, other in zip(everything(prior, x), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_compiled_networks_compute_the_same(
    monkeypatch: pytest.MonkeyPatch, tiny_prior: EmbeddedPrior, scene: Scene
) -> None:
    """Without the generation of code, which takes long."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    check(tiny_prior, scene(16, 24))


@pytest.mark.slow
def test_compiled_code_computes_the_same(tiny_prior: EmbeddedPrior, scene: Scene) -> None:
    check(tiny_prior, scene(16, 24))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found in\ncpp.cxx")

    monkeypatch.setattr(torch, "compile", lambda _: refuse)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_it_is_said_what_is_missing(cli: Any, here: Any) -> None:
    reason = "PyTorch cannot compile networks for cpu here: No working C"
    with pytest.raises(UserError, match=reason):
        load_prior("embedded", CPU, compile=True)
    with pytest.raises(UserError, match=reason):
        latentdem.deblur(torch.zeros(16, 16), 5, device="cpu", compile=True)
    said = cli.sentence("deblur", "../photo.png", "--compile", "--device", "cpu", "--kernel-size", 5)
    assert said.endswith("(a C++ compiler on a CPU, Triton on a GPU), or leave 'compile' out.")
    assert cli.names(here) == []


def test_a_prior_without_known_networks_is_refused() -> None:
    with pytest.raises(UserError, match="The networks of a object cannot be compiled"):
        compile_networks(object(), CPU)
