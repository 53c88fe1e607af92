"""Build of the native modules by CMake; everything else stands in pyproject.toml.

LATENTDEM_NATIVE=OFF leaves them out: the operations then run on their PyTorch references.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NATIVE = os.environ.get("LATENTDEM_NATIVE", "ON").upper()
HELP = "Set LATENTDEM_NATIVE=OFF to install without the native module."


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt; the modules land where setuptools expects them."""

    def build_extension(self, ext: Extension) -> None:
        """Build every target of CMakeLists.txt."""
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        work = Path(self.build_temp).resolve() / "cmake"
        require_tools()
        import pybind11

        configure = [
            "cmake",
            "--fresh",  # the last build's tools may have been in an isolated environment that is gone
            "-S", str(ROOT),
            "-B", str(work),
            "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]  # fmt: skip
        for stage, command in (("configured", configure), ("compiled", ["cmake", "--build", str(work)])):
            if subprocess.run(command, check=False).returncode:
                raise SystemExit(f"The native module could not be {stage}, see the messages above. {HELP}")


def require_tools() -> None:
    """Stop with the name of the first build tool that is missing."""
    tools = {"CMake (cmake)": ["cmake"], "Ninja (ninja)": ["ninja"]}
    tools["a C++ compiler (c++, g++, clang++ or cl, or the one CXX names)"] = (
        [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
    )
    for name, programs in tools.items():
        if not any(map(shutil.which, programs)):
            raise SystemExit(f"The native module needs {name}, which was not found. {HELP}")


if NATIVE not in ("ON", "OFF"):
    raise SystemExit(f"LATENTDEM_NATIVE must be ON or OFF, not {NATIVE!r}.")

setup(
    packages=[*find_packages("python"), *find_packages(include=["latentdem_ext*"]), "latentdem_kernels"],
    package_dir={
        "latentdem": "python/latentdem",
        "latentdem_ext": "latentdem_ext",
        "latentdem_kernels": "kernels",
    },
    ext_modules=[Extension("latentdem_ext._cpu", sources=[])] if NATIVE == "ON" else [],
    cmdclass={"build_ext": CMakeBuild},
)
