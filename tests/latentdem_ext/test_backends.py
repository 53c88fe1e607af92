from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import _backends

STEP = (torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1) / 2, torch.ones(1))


@pytest.fixture
def without_cpp(monkeypatch):
    monkeypatch.setattr(_backends, "cpu", None)
    monkeypatch.setattr(_backends, "_cpu_reason", "it was not built")


def test_reference_is_always_there():
    assert ext.backends()["reference"] == ext.Backend(True, "")
    assert str(ext.backends()["reference"]) == "available"


def test_missing_module_is_explained(tmp_path):
    folder = tmp_path / "latentdem_ext"
    folder.mkdir()
    for name in ("_cpu", "_cuda"):
        (folder / f"{name}.pyi").touch()
    error = ImportError("GLIBCXX_3.4.99 not found")
    for name in ("_cpu", "_cuda"):
        assert "LATENTDEM_NATIVE=OFF" in _backends._why_missing(folder, name, error)
    (folder / f"_cpu{EXTENSION_SUFFIXES[0]}").touch()
    assert "does not load (GLIBCXX_3.4.99 not found)" in _backends._why_missing(folder, "_cpu", error)
    assert "built without CUDA: there is no record" in _backends._why_missing(folder, "_cuda", error)
    (folder / "_build.json").write_text('{"without_cuda": "nvcc was not found"}')
    reason = _backends._why_missing(folder, "_cuda", error)
    assert reason == "latentdem was built without CUDA: nvcc was not found"
    (folder / f"_cuda{EXTENSION_SUFFIXES[0]}").touch()
    assert "does not load (GLIBCXX_3.4.99 not found)" in _backends._why_missing(folder, "_cuda", error)


def test_cuda_needs_the_module_and_a_device(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_backends, "cuda", None)
    monkeypatch.setattr(_backends, "_cuda_reason", "nvcc was not found")
    assert ext.backends()["cuda"] == ext.Backend(False, "nvcc was not found", built=False)
    assert str(ext.backends()["cuda"]) == "not built: nvcc was not found"
    monkeypatch.setattr(_backends, "_cuda_reason", "its compiled module does not load (no libc)")
    assert ext.backends()["cuda"].built
    monkeypatch.setattr(_backends, "cuda", sys)
    assert ext.backends()["cuda"] == ext.Backend(True, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(ext.backends()["cuda"]) == "built, but not usable here: PyTorch sees no CUDA device"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert ext.backends()["cuda"].reason == f"PyTorch {torch.__version__} is built without CUDA"


def test_triton_needs_the_package_and_a_device(monkeypatch):
    state = _backends._triton_state.__wrapped__  # it is asked for once in a process
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(_backends, "find_spec", lambda name: None)
    assert state() == ext.Backend(False, "the package triton is not installed", built=False)
    monkeypatch.setattr(_backends, "find_spec", lambda name: sys)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert state() == ext.Backend(False, _backends.without_cuda_device())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert state().reason.startswith("the package triton does not load (")
    monkeypatch.setitem(sys.modules, "triton", sys)
    assert state() == ext.Backend(True, "")


def test_request_ends_with_the_block_and_blocks_nest():
    assert ext.requested_backend() is None
    with ext.use_backend("reference"):
        with pytest.raises(KeyError), ext.use_backend("reference"):
            raise KeyError
        assert ext.requested_backend() == "reference"
    assert ext.requested_backend() is None


def test_unknown_backend_is_refused_with_the_known_ones():
    with (
        pytest.raises(ValueError, match="there is no backend 'opencl'; there are reference, cpp, cuda"),
        ext.use_backend("opencl"),
    ):
        pass


@pytest.mark.usefixtures("without_cpp")
def test_unusable_backend_raises_where_requested_and_is_skipped_where_not():
    ext.dps_step(*STEP)
    with (
        pytest.raises(RuntimeError, match="the backend 'cpp' cannot be used: it was not built"),
        ext.use_backend("cpp"),
    ):
        pass


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
def test_requested_backend_that_does_not_take_the_arguments_says_why():
    double = [value.double() for value in STEP]
    ext.dps_step(*double)
    with (
        ext.use_backend("cpp"),
        pytest.raises(RuntimeError, match=r"dps_step cannot run .* z_t is float64, not float32"),
    ):
        ext.dps_step(*double)


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
def test_choice_is_the_fastest_unless_the_reference_is_requested(monkeypatch):
    calls = []
    monkeypatch.setattr(_backends.cpu, "dps_step", lambda **_: calls.append(1))
    with ext.use_backend("reference"):
        ext.dps_step(*STEP)
    assert not calls
    ext.dps_step(*STEP)
    assert calls


def test_what_ran_is_recorded():
    with ext.record_backends() as outer:
        with ext.use_backend("reference"), ext.record_backends() as inner:
            ext.dps_step(*STEP)
            ext.dps_step(*STEP)
        assert inner == {"dps_step": ["reference"]}
        ext.dps_step(*STEP)
    ext.dps_step(*(value.double() for value in STEP))
    automatic = "cpp" if ext.backends()["cpp"].available else "reference"
    assert outer == {"dps_step": list(dict.fromkeys(["reference", automatic]))}
    assert inner == {"dps_step": ["reference"]}


def test_environment_requests_for_the_whole_process():
    program = (
        "import latentdem_ext as ext\n"
        "print(ext.requested_backend())\n"
        "with ext.use_backend('reference'): print(ext.requested_backend())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(ext.__file__).parents[1],
        env=os.environ | {"LATENTDEM_BACKEND": "reference"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["reference", "reference"]


def test_unusable_environment_raises_but_a_block_overrides_it(monkeypatch):
    monkeypatch.setattr(_backends, "_environment", "opencl")
    with pytest.raises(ValueError, match="there is no backend 'opencl'"):
        ext.dps_step(*STEP)
    with ext.use_backend("reference"):
        ext.dps_step(*STEP)
