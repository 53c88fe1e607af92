"""The installed package: what is in it, where it comes from, and how its build fails."""

from __future__ import annotations

import ctypes
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


def run_setup(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("setuptools")
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", f"--build-lib={folder}", f"--build-temp={folder}"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("LATENTDEM_")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def program(path: Path, script: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_build_without_tools_says_what_is_missing_and_how_to_do_without(tmp_path):
    run = run_setup(tmp_path, PATH=str(tmp_path))
    assert run.returncode != 0
    assert "needs CMake (cmake), which was not found. Set LATENTDEM_NATIVE=OFF" in run.stderr
    for tool in ("cmake", "ninja"):
        program(tmp_path / tool)
    assert "needs a C++ compiler" in run_setup(tmp_path, PATH=str(tmp_path), CXX="no-such-compiler").stderr


@pytest.fixture
def tools(tmp_path) -> dict[str, str]:
    """An environment whose build tools do nothing; cmake writes its arguments to tmp_path / "arguments"."""
    pytest.importorskip("pybind11")
    program(tmp_path / "cmake", f'echo "$@" >> {tmp_path / "arguments"}')
    for tool in ("ninja", "c++"):
        program(tmp_path / tool)
    return {"PATH": str(tmp_path), "CXX": "c++"}


def test_cuda_module_is_left_out_where_nvcc_does_not_work(tmp_path, tools):
    nvcc = program(tmp_path / "nvcc", "echo 'host_config.h: fatal error: unsupported GNU version!' >&2; exit 1")
    missing = "nvcc, named by CUDACXX, on the PATH or below CUDA_PATH, was not found"
    broken = f"{nvcc} cannot compile a test program (host_config.h: fatal error: unsupported GNU version!)"
    for path, problem in (("no-such-nvcc", missing), (nvcc, broken)):
        run = run_setup(tmp_path, **tools, CUDACXX=str(path), LATENTDEM_CUDA="ON")
        assert run.returncode != 0
        assert run.stderr.strip() == (
            f"LATENTDEM_CUDA=ON, but {problem}. Set LATENTDEM_CUDA=OFF to install without the CUDA module."
        )
        assert not (tmp_path / "arguments").exists()
        run = run_setup(tmp_path, **tools, CUDACXX=str(path))
        assert run.returncode == 0, run.stderr
        assert f"latentdem is built without CUDA: {problem}." in run.stdout
        assert "-DLATENTDEM_CUDA=OFF" in (tmp_path / "arguments").read_text()
        (tmp_path / "arguments").unlink()


def test_cuda_module_is_built_for_the_architectures_asked_for(tmp_path, tools):
    nvcc = program(tmp_path / "nvcc", f'echo "$@" > {tmp_path / "flags"}')
    assert run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA_ARCHS="100,90").returncode == 0
    assert "arch=compute_90,code=sm_90" in (tmp_path / "flags").read_text()
    arguments = (tmp_path / "arguments").read_text()
    assert f"-DLATENTDEM_CUDA=ON -DCMAKE_CUDA_COMPILER={nvcc} -DLATENTDEM_CUDA_ARCHS=90;100" in arguments
    run = run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA_ARCHS="sm_90")
    assert "LATENTDEM_CUDA_ARCHS must be numbers like 80;90, not 'sm_90'" in run.stderr
    (tmp_path / "arguments").unlink()
    assert run_setup(tmp_path, **tools, CUDACXX=str(nvcc), LATENTDEM_CUDA="OFF").returncode == 0
    assert "-DLATENTDEM_CUDA=OFF" in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(("variable", "known"), [("NATIVE", "ON or OFF"), ("CUDA", "AUTO, ON or OFF")])
def test_build_refuses_an_unknown_setting(tmp_path, variable, known):
    run = run_setup(tmp_path, **{f"LATENTDEM_{variable}": "MAYBE"})
    assert run.returncode != 0
    assert f"LATENTDEM_{variable} must be {known}, not 'MAYBE'" in run.stderr
