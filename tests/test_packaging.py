"""The installed package: what is in it and where it comes from."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import latentdem_ext
from latentdem_ext import _backends

ROOT = Path(__file__).resolve().parents[1]
NATIVE = os.environ.get("LATENTDEM_NATIVE", "ON").upper() != "OFF"


def test_tests_run_on_the_installed_package():
    """Not on the folder of that name at the root, unless an editable install has put the module there."""
    folder = Path(latentdem_ext.__file__).parent
    assert metadata.version("latentdem")
    assert folder != ROOT / "latentdem_ext" or not NATIVE or list(folder.glob("_cpu.*[!i]")), folder


@pytest.mark.skipif(not NATIVE, reason="LATENTDEM_NATIVE=OFF")
def test_native_module_is_built_and_does_not_need_pytorch():
    assert latentdem_ext.backends()["cpp"].available, latentdem_ext.backends()["cpp"].reason
    from latentdem_ext import _cpu

    program = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('_cpu', {_cpu.__file__!r})\n"
        "module = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "assert callable(module.dps_step)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(not NATIVE, reason="LATENTDEM_NATIVE=OFF")
def test_build_says_why_there_is_no_cuda_module():
    record = json.loads((Path(latentdem_ext.__file__).parent / "_build.json").read_text())
    assert bool(record["without_cuda"]) == (not latentdem_ext.backends()["cuda"].built)
    assert record["without_cuda"] in latentdem_ext.backends()["cuda"].reason


@pytest.mark.skipif(_backends.cuda is None, reason=latentdem_ext.backends()["cuda"].reason)
def test_cuda_module_shows_no_function_of_the_cuda_runtime():
    """Else those of the runtime that PyTorch brings would be called instead."""
    module = ctypes.CDLL(_backends.cuda.__file__)
    assert module.PyInit__cuda
    for name in ("cudaLaunchKernel", "cudaGetLastError", "__cudaRegisterFatBinary"):
        assert not hasattr(module, name), name


@pytest.mark.parametrize("package", ["latentdem", "latentdem_ext"])
def test_package_is_typed(package):
    assert (Path(import_module(package).__file__).parent / "py.typed").exists()


def test_kernels_are_installed():
    assert import_module("latentdem_kernels").__doc__


def test_command_is_installed():
    (command,) = metadata.entry_points(group="console_scripts", name="latentdem")
    assert command.value == "latentdem.cli:main"
    assert callable(command.load())
