"""The programs of tools/, which are not installed, as modules."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def _load(name: str) -> ModuleType:
    path = TOOLS / name
    folders = [str(path)] if path.is_dir() else None
    file = path / "__init__.py" if folders else path.with_suffix(".py")
    spec = util.spec_from_file_location(name, file, submodule_search_locations=folders)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(TOOLS))  # the training programs import their neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TOOLS))
    return module


@pytest.fixture(scope="session")
def gpu_report() -> ModuleType:
    return _load("gpu_report")


@pytest.fixture(scope="session")
def compare_installs() -> ModuleType:
    return _load("compare_installs")


@pytest.fixture(scope="session")
def train_prior() -> ModuleType:
    return _load("train_prior")


@pytest.fixture(scope="session")
def train_kernel_denoiser() -> ModuleType:
    return _load("train_kernel_denoiser")


@pytest.fixture(scope="session")
def train_kernel_diffusion() -> ModuleType:
    return _load("train_kernel_diffusion")


@pytest.fixture(scope="session")
def train_view_prior() -> ModuleType:
    return _load("train_view_prior")


@pytest.fixture(scope="session")
def train_framing() -> ModuleType:
    return _load("train_framing")


@pytest.fixture(scope="session")
def train_occupancy() -> ModuleType:
    return _load("train_occupancy")


@pytest.fixture(scope="session")
def muon() -> ModuleType:
    return _load("_muon")


@pytest.fixture(scope="session")
def train_kernel_refiner() -> ModuleType:
    return _load("train_kernel_refiner")


@pytest.fixture(scope="session")
def fuzz_images() -> ModuleType:
    return _load("fuzz_images")


@pytest.fixture(scope="session")
def kill_runs() -> ModuleType:
    return _load("kill_runs")


@pytest.fixture(scope="session")
def folder_memory() -> ModuleType:
    return _load("folder_memory")


@pytest.fixture(scope="session")
def mesh_scenes() -> ModuleType:
    return _load("_mesh_scenes")


@pytest.fixture(scope="session")
def compare_looks() -> ModuleType:
    return _load("compare_looks")


@pytest.fixture(scope="session")
def train_pose_scorer() -> ModuleType:
    return _load("train_pose_scorer")


@pytest.fixture(scope="session")
def distill_prior() -> ModuleType:
    return _load("distill_prior")


@pytest.fixture(scope="session")
def pruning() -> ModuleType:
    return _load("_pruning")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two pictures of noise."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(2):
        pixels = generator.integers(0, 255, (200, 210, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder
