"""The CUDA sources compiled as C++ (see shim/), and the operations of latentdem_ext on them, in CPU memory."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

from latentdem_ext import _backends, _cuda_ops, reference

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
SHIM = Path(__file__).resolve().parent / "shim"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{SHIM}", f"-I{CUDA}"]


class Builder:
    """Compiles C++ sources, each once for all sessions and processes that meet the same text and flags."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self.folder, self.compiler = folder, compiler
        headers = sorted([*CUDA.glob("*.hpp"), *CUDA.glob("*.cuh"), *SHIM.glob("*.h")])
        self.headers = b"".join(file.read_bytes() for file in headers)

    def build(self, name: str, sources: Sequence[Path], flags: Sequence[str], link: Sequence[str]) -> Path:
        """The kernels, the scheduler and `sources` as one file."""
        sources = [*sorted(CUDA.glob("*.cu")), SHIM / "shim.cpp", *sources]
        compiling = [*FLAGS, *flags, "-c", "-x", "c++"]
        objects = [self._make(source.name + ".o", compiling, [source]) for source in sources]
        return self._make(name, link, objects)

    def _make(self, name: str, flags: Sequence[str], inputs: Sequence[Path]) -> Path:
        text = b"".join(path.read_bytes() for path in inputs)
        key = hashlib.sha256(self.headers + text + " ".join([self.compiler, *flags]).encode()).hexdigest()
        target = self.folder / key[:16] / name
        target.parent.mkdir(exist_ok=True)
        with (target.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                command = [self.compiler, *flags, *map(str, inputs), "-o", f"{target}.new"]
                run = subprocess.run(command, capture_output=True, text=True, check=False)
                assert run.returncode == 0, f"{' '.join(command)}\n{run.stderr}"
                os.replace(f"{target}.new", target)
        return target


@pytest.fixture(scope="session")
def builder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler on Linux")
    cache = getattr(pytestconfig, "cache", None)  # none under `-p no:cacheprovider`
    folder = tmp_path_factory.mktemp("native") if cache is None else cache.mkdir("latentdem_native")
    return Builder(folder, compiler)


@pytest.fixture(scope="session")
def shim(builder: Builder) -> ModuleType:
    """`_cuda` for CPU memory: the bindings and the kernels, compiled against the shim."""
    pybind11 = pytest.importorskip("pybind11")
    flags = ["-O1", "-fPIC", "-DLATENTDEM_OLDEST_ARCHITECTURE=80"]
    flags += ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")]
    path = builder.build("_cuda.so", [CUDA / "bindings.cpp", SHIM / "faulty.cpp"], flags, ["-shared"])
    spec = importlib.util.spec_from_file_location("_cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sanitized(builder: Builder) -> Path:
    """shim/sanitize.cpp under AddressSanitizer and UndefinedBehaviorSanitizer."""
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    return builder.build("sanitize", [SHIM / "sanitize.cpp"], ["-O1", "-g1", *sanitizers], sanitizers)


@pytest.fixture
def thread_order(shim: ModuleType) -> Iterator[Callable[[int], None]]:
    """The order of threads and blocks: 0 ascending, 1 descending, else the seed of a random one."""
    set_order = ctypes.CDLL(shim.__file__).latentdem_shim_order
    yield set_order
    set_order(0)


@pytest.fixture
def on_shim(shim: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`_cuda_ops` works on CPU tensors, on lattices as on a CUDA device; new memory is filled with NaN."""
    lattice_side = reference.lattice_side
    monkeypatch.setattr(_backends, "cuda", shim)
    monkeypatch.setattr(_cuda_ops, "_place", lambda device: {"device": 0, "stream": 0})
    for module in (_cuda_ops, reference.fourier):
        monkeypatch.setattr(module, "lattice_side", lambda size, _: lattice_side(size, torch.device("cuda")))
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
