"""The installed package: what is in it, where it comes from, and how its build fails."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import latentdem_ext

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


@pytest.mark.parametrize("package", ["latentdem", "latentdem_ext"])
def test_package_is_typed(package):
    assert (Path(import_module(package).__file__).parent / "py.typed").exists()


def test_kernels_are_installed():
    assert import_module("latentdem_kernels").__doc__


def test_command_is_installed():
    (command,) = metadata.entry_points(group="console_scripts", name="latentdem")
    assert command.value == "latentdem.cli:main"
    assert callable(command.load())


def run_setup(**environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("setuptools")
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "LATENTDEM_NATIVE"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_build_without_tools_says_what_is_missing_and_how_to_do_without(tmp_path):
    run = run_setup(PATH=str(tmp_path))
    assert run.returncode != 0
    assert "needs CMake (cmake), which was not found. Set LATENTDEM_NATIVE=OFF" in run.stderr
    for tool in ("cmake", "ninja"):
        (tmp_path / tool).write_text("")
        (tmp_path / tool).chmod(0o755)
    assert "needs a C++ compiler" in run_setup(PATH=str(tmp_path), CXX="no-such-compiler").stderr


def test_build_refuses_an_unknown_setting():
    run = run_setup(LATENTDEM_NATIVE="MAYBE")
    assert run.returncode != 0
    assert "LATENTDEM_NATIVE must be ON or OFF, not 'MAYBE'" in run.stderr
