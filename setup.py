"""Build of the native modules by CMake; everything else stands in pyproject.toml.

Environment variables:
    LATENTDEM_NATIVE=OFF leaves all of them out: the operations then run on their PyTorch references.
    LATENTDEM_CUDA: AUTO (the default) builds the CUDA module where a working nvcc is found, ON insists, OFF
        leaves it out.
    LATENTDEM_CUDA_ARCHS: the GPU architectures it carries code for (default 80;86;89;90); the newest of them
        gets PTX too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NATIVE = os.environ.get("LATENTDEM_NATIVE", "ON").upper()
CUDA = os.environ.get("LATENTDEM_CUDA", "AUTO").upper()
CUDA_ARCHS = os.environ.get("LATENTDEM_CUDA_ARCHS", "80;86;89;90")
HELP = "Set LATENTDEM_NATIVE=OFF to install without the native modules."
CUDA_HELP = "Set LATENTDEM_CUDA=OFF to install without the CUDA module."


class CMakeBuild(build_ext):
    """Configures and builds CMakeLists.txt; the modules land where setuptools expects them."""

    def build_extensions(self) -> None:
        """Build every target of CMakeLists.txt."""
        require_tools()
        nvcc = usable_nvcc()
        import pybind11

        work = Path(self.build_temp).resolve() / "cmake"
        modules = [Path(self.get_ext_fullpath(extension.name)).resolve() for extension in self.extensions]
        for module in modules:
            module.unlink(missing_ok=True)  # a module that is left out this time must not stay from the last

        configure = [
            "cmake",
            "--fresh",  # the last build's tools may have been in an isolated environment that is gone
            "-S", str(ROOT),
            "-B", str(work),
            "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={modules[0].parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DLATENTDEM_CUDA={'ON' if nvcc else 'OFF'}",
        ]  # fmt: skip
        if nvcc:
            configure += [f"-DCMAKE_CUDA_COMPILER={nvcc}", f"-DLATENTDEM_CUDA_ARCHS={';'.join(cuda_archs())}"]
        how = f"{CUDA_HELP} {HELP}" if nvcc else HELP
        for stage, command in (("configured", configure), ("compiled", ["cmake", "--build", str(work)])):
            if subprocess.run(command, check=False).returncode:
                raise SystemExit(f"The native modules could not be {stage}, see the messages above. {how}")


def require_tools() -> None:
    """Stop with the name of the first build tool that is missing."""
    tools = {"CMake (cmake)": ["cmake"], "Ninja (ninja)": ["ninja"]}
    tools["a C++ compiler (c++, g++, clang++ or cl, or the one CXX names)"] = (
        [os.environ["CXX"].split()[0]] if os.environ.get("CXX") else ["c++", "g++", "clang++", "cl"]
    )
    for name, programs in tools.items():
        if not any(map(shutil.which, programs)):
            raise SystemExit(f"The native module needs {name}, which was not found. {HELP}")


def cuda_archs() -> list[str]:
    """The architectures of LATENTDEM_CUDA_ARCHS, oldest first."""
    archs = re.split("[;, ]+", CUDA_ARCHS.strip())
    if not all(arch.isdigit() for arch in archs):
        raise SystemExit(f"LATENTDEM_CUDA_ARCHS must be numbers like 80;90, not {CUDA_ARCHS!r}.")
    return sorted(set(archs), key=int)


def usable_nvcc() -> str | None:
    """The nvcc that builds the CUDA module; None where the module is left out."""
    if CUDA == "OFF":
        return None
    nvcc = find_nvcc()
    if nvcc is None:
        problem = "nvcc, named by CUDACXX, on the PATH or below CUDA_PATH, was not found"
    else:
        problem = failure_of(nvcc)
    if not problem:
        return nvcc
    if CUDA == "ON":
        raise SystemExit(f"LATENTDEM_CUDA=ON, but {problem}. {CUDA_HELP}")
    print(f"latentdem is built without CUDA: {problem}.")
    return None


def find_nvcc() -> str | None:
    """The path of nvcc."""
    if os.environ.get("CUDACXX"):
        return shutil.which(os.environ["CUDACXX"])
    toolkits = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    below = [shutil.which("nvcc", path=str(Path(folder) / "bin")) for folder in toolkits if folder]
    return next(filter(None, [shutil.which("nvcc"), *below]), None)


def failure_of(nvcc: str) -> str:
    """Why `nvcc` does not compile a test program with the host's compiler ("" if it does)."""
    command = [nvcc, "-c", "test.cu", "-o", "test.o"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in cuda_archs()]
    if os.environ.get("CUDAHOSTCXX"):
        command += ["-ccbin", os.environ["CUDAHOSTCXX"]]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test.cu").write_text("__global__ void kernel() {}\n")
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return ""
    messages = (run.stderr + run.stdout).splitlines()
    errors = [line.strip() for line in messages if re.search("error|fatal", line)]
    said = errors[0] if errors else f"it ended with {run.returncode}"
    return f"{nvcc} cannot compile a test program ({said})"


for variable, value, known in (("NATIVE", NATIVE, ("ON", "OFF")), ("CUDA", CUDA, ("AUTO", "ON", "OFF"))):
    if value not in known:
        raise SystemExit(f"LATENTDEM_{variable} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r}.")

setup(
    packages=[*find_packages("python"), *find_packages(include=["latentdem_ext*"]), "latentdem_kernels"],
    package_dir={
        "latentdem": "python/latentdem",
        "latentdem_ext": "latentdem_ext",
        "latentdem_kernels": "kernels",
    },
    ext_modules=[
        Extension("latentdem_ext._cpu", sources=[]),
        Extension("latentdem_ext._cuda", sources=[], optional=True),
    ]
    if NATIVE == "ON"
    else [],
    cmdclass={"build_ext": CMakeBuild},
)
