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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import _backends, _native, reference
from latentdem_ext._registry import OPERATIONS, Implementation

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
SHIM = Path(__file__).resolve().parent / "shim"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{SHIM}", f"-I{CUDA}"]


class Builder:
    """Compiles C++ sources, each once for all workers that build the same text with the same flags."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self.folder, self.compiler = folder, compiler
        headers = sorted(
            [*CUDA.glob("*.hpp"), *CUDA.glob("*.cuh"), *SHIM.glob("*.h"), *SHIM.parent.glob("*.hpp")]
        )
        self.headers = b"".join(file.read_bytes() for file in headers)

    def build(self, name: str, sources: Sequence[Path], flags: Sequence[str], link: Sequence[str]) -> Path:
        """The kernels, the scheduler and `sources` as one file."""
        sources = [*sorted(CUDA.glob("*.cu")), SHIM / "shim.cpp", *sources]
        compiling = [*FLAGS, *flags, "-c", "-x", "c++"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(
                pool.map(lambda source: self._make(source.name + ".o", compiling, [source]), sources)
            )
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
    cache = getattr(pytestconfig, "cache", None)
    if cache is not None:
        return Builder(cache.mkdir("latentdem_native"), compiler)
    # Under `-p no:cacheprovider`: a folder of this session that all workers of pytest-xdist share.
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "latentdem_native"
    folder.mkdir(exist_ok=True)
    return Builder(folder, compiler)


@pytest.fixture(scope="session")
def shim(builder: Builder) -> ModuleType:
    """`_cuda` for CPU memory: the bindings and the kernels, compiled against the shim."""
    pybind11 = pytest.importorskip("pybind11", reason="the build needs pybind11")
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
    """sanitize.cpp under AddressSanitizer and UndefinedBehaviorSanitizer."""
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    return builder.build("sanitize", [SHIM.parent / "sanitize.cpp"], ["-O1", "-g1", *sanitizers], sanitizers)


@pytest.fixture
def thread_order(shim: ModuleType) -> Iterator[Callable[[int], None]]:
    """The order of threads and blocks: 0 ascending, 1 descending, else the seed of a random one."""
    set_order = ctypes.CDLL(shim.__file__).latentdem_shim_order
    yield set_order
    set_order(0)


@pytest.fixture
def on_shim(shim: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backend "cuda", which has been requested, takes tensors in CPU memory; new memory is filled with NaN.

    Padded grids have the sizes that they have on a CUDA device.
    """
    padded_side = reference.padded_side
    monkeypatch.setattr(_backends, "cuda", shim)
    monkeypatch.setitem(_backends._STATES, "cuda", lambda: ext.Backend(True, ""))
    monkeypatch.setattr(_native, "_device_and_stream", lambda device: {"device": 0, "stream": 0})
    for operation in OPERATIONS.values():
        if "cuda" in operation.backends:
            run = operation.backends["cuda"].run
            monkeypatch.setitem(operation.backends, "cuda", Implementation(run, lambda *_: ""))
    for module in (reference, reference.fourier):
        monkeypatch.setattr(module, "padded_side", lambda size, _: padded_side(size, torch.device("cuda")))
    torch.use_deterministic_algorithms(True)
    with ext.use_backend("cuda"):
        yield
    torch.use_deterministic_algorithms(False)
