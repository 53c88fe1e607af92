"""What every test relies on: the built package, its share of the processors, a fixed seed, test data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import latentdem_ext  # noqa: F401  A source tree that was not built is reported once, before any test is collected.

torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run folders in a process for each core, up to four, and single files in this process, unless -n is given.

    Neighbours share fixtures, so a process takes runs of them (worksteal). pytest-cov must see -n before this.
    """
    option = config.option
    if hasattr(config, "workerinput") or getattr(option, "numprocesses", 0) is not None:
        return
    if option.usepdb or getattr(option, "cov_source", None):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    folders = any(Path(argument.partition("::")[0]).is_dir() for argument in config.args)
    if cores > 1 and folders and option.dist == "no" and not option.collectonly:
        option.numprocesses, option.dist = min(4, cores), "worksteal"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _problem(
    batch: int, channels: int, shape: tuple[int, int, int], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    height, width, size = shape
    kernel = torch.rand(batch, 1, size, size, dtype=dtype)
    x, y = torch.rand(2, batch, channels, height, width, dtype=dtype) * 2 - 1
    return x, kernel / kernel.sum(dim=(-2, -1), keepdim=True), y


@pytest.fixture
def problem() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """(B, C, (H, W, K)) -> image and measurement (B, C, H, W), kernel (B, 1, K, K), unrelated to each other."""
    return _problem
