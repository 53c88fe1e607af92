from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import _native


def test_plain_tensors_hold_their_values_in_order():
    conjugate = torch.randn(3, 4, dtype=torch.complex64).conj()
    for lazy in (conjugate, conjugate.imag, conjugate.mT):
        plain = _native.plain(lazy)
        assert plain.is_contiguous()
        assert not plain.is_conj()
        assert not plain.is_neg()
        assert torch.equal(plain, lazy)


def test_refusal_of_the_triton_kernels_names_the_tensor():
    double, single = torch.zeros(1).double(), torch.zeros(1)
    assert _native.triton_refusal("z_t", double) == "z_t is float64, not float16, bfloat16 or float32"
    assert _native.triton_refusal("x", single) == "x is on cpu, not on a CUDA device"


def test_interpreter_takes_cpu_tensors_on_request_only(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(_native._backends, "requested_backend", lambda: "triton")
    assert _native.triton_refusal("x", torch.zeros(1)) == ""
    monkeypatch.setattr(_native._backends, "requested_backend", lambda: None)
    assert _native.triton_refusal("x", torch.zeros(1)) != ""


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
def test_absent_tensors_are_null():
    assert _native._addresses({"noise": None, "eta": 0.5}) == {"noise": 0, "eta": 0.5}
