"""The installed package: what is in it and where it comes from."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib import import_module, metadata
from pathlib import Path

import pytest

import latentdem_ext
from latentdem_ext import _backends

ROOT = Path(__file__).resolve().parents[1]
NATIVE = os.environ.get("LATENTDEM_NATIVE", "ON").upper() != "OFF"


def import_from_copy(tmp_path: Path, *built: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Import latentdem_ext from a copy of the source tree with the files `built` (name, text) in its folder."""
    shutil.copytree(
        Path(latentdem_ext.__file__).parent,
        tmp_path / "latentdem_ext",
        ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "_build.json"),
    )
    (tmp_path / "setup.py").touch()
    (tmp_path / "csrc").mkdir()
    for name, text in built:
        (tmp_path / "latentdem_ext" / name).write_text(text)
    program = (
        "import sys\n"
        # An editable install would find the modules that the copy lacks.
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
        "import latentdem_ext as ext\n"
        "print(ext.backends()['cpp'])"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def test_source_tree_that_was_not_built_is_refused_in_one_sentence(tmp_path):
    run = import_from_copy(tmp_path)
    assert run.returncode != 0
    folder = tmp_path / "latentdem_ext"
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: latentdem_ext was imported from the source folder {folder}, which has not been built; "
        "start Python in another folder (or run `pytest` instead of `python -m pytest`), or "
        "install with `pip install -e .`"
    )


def test_source_tree_that_was_built_for_another_python_is_refused(tmp_path):
    record = ("_build.json", '{"native": true, "without_cuda": ""}')
    run = import_from_copy(tmp_path, record, ("_cpu.cpython-00-other.so", ""))
    assert run.returncode != 0
    assert "which has not been built for this Python; " in run.stderr


def test_source_tree_that_was_built_without_native_modules_works(tmp_path):
    run = import_from_copy(tmp_path, ("_build.json", '{"native": false, "without_cuda": ""}'))
    assert run.returncode == 0, run.stderr
    assert run.stdout == (
        "not built: latentdem was installed without its compiled modules (LATENTDEM_NATIVE=OFF)\n"
    )


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
    """Otherwise those of the runtime that PyTorch brings would be called instead."""
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


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_source_distribution_has_every_file_of_the_repository(tmp_path):
    """Its tests can then be run from it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = listed.stdout.split("\n")[:-1]
    for file in files:
        (tmp_path / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / "copy" / file)
    program = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "copy", check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert set(files) <= packed
