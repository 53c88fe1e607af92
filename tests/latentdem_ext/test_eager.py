from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from latentdem_ext import dps_step
from latentdem_ext._eager import needs_dispatcher


@pytest.fixture
def asked() -> tuple[list[bool], object]:
    """A function that notes, wherever it is called, whether it would need the dispatcher."""
    answers: list[bool] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        answers.append(needs_dispatcher(x, None, 1.0))
        return x * 2

    return answers, note


def test_plain_tensors_do_not_need_it():
    assert not needs_dispatcher(torch.zeros(2), None, 0.5)


def test_gradients_need_it_while_they_are_recorded():
    x = torch.zeros(2, requires_grad=True)
    assert needs_dispatcher(torch.zeros(2), x)
    with torch.no_grad():
        assert not needs_dispatcher(torch.zeros(2), x)


def test_other_kinds_of_tensors_need_it():
    assert needs_dispatcher(torch.zeros(2, device="meta"))

    class Other(torch.nn.Parameter):
        pass

    assert needs_dispatcher(Other(torch.zeros(2), requires_grad=False))
    with FakeTensorMode():
        assert needs_dispatcher(torch.zeros(2))


def test_weights_need_it_where_they_are_learned():
    weight = torch.nn.Parameter(torch.zeros(2))
    assert needs_dispatcher(weight)
    assert not needs_dispatcher(weight.requires_grad_(False))


def test_a_network_with_frozen_weights_does_not_import_the_compiler(tmp_path):
    program = (
        "import sys, torch, latentdem_ext as ext;"
        "conv = torch.nn.Conv2d(16, 16, 3).requires_grad_(False);"
        "ext.convolution(torch.zeros(1, 16, 32, 32), conv.weight, conv.bias);"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    # In a folder of its own: sources beside it would hide the installed package.
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: torch.func.vmap(f),
        lambda f: torch.func.grad(lambda x: f(x).sum()),
        lambda f: make_fx(f),
        lambda f: lambda x: make_fx(f, tracing_mode="fake")(x),
        lambda f: lambda x: torch.jit.trace(f, x, check_trace=False),
    ],
    ids=["vmap", "grad", "make_fx", "make_fx fake", "jit.trace"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_transformed_functions_need_it(transform, asked):
    answers, note = asked
    transform(note)(torch.zeros(2))
    assert answers
    assert all(answers)


def test_forward_mode_needs_it():
    with forward_ad.dual_level():
        assert needs_dispatcher(torch.zeros(2))


def test_a_profile_shows_the_operation():
    z_t, eps = torch.randn(2, 1, 4)
    with torch.profiler.profile() as profile:
        dps_step(z_t, eps, torch.tensor([0.5]), torch.tensor([0.6]))
    assert any(event.key == "latentdem::dps_step" for event in profile.key_averages())


def test_both_ways_give_the_same():
    z_t, eps = torch.randn(2, 3, 4)
    abar = torch.tensor([0.2, 0.5, 0.7])
    direct = dps_step(z_t, eps, abar, abar + 0.1)
    registered = torch.ops.latentdem.dps_step(z_t, eps, abar, abar + 0.1, None, 1.0, 0.0, None, None, None)
    for one, other in zip(direct, registered, strict=True):
        assert torch.equal(one, other)
