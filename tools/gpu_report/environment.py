"""Device, driver and versions that the figures of a report depend on, without names of machine or user."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "pybind11",
    "cmake",
    "ninja",
    "setuptools",
    "pytest",
    "pytest-benchmark",
)
PROGRAMS = (
    ("nvcc", "--version"),
    ("compute-sanitizer", "--version"),
    ("cmake", "--version"),
    ("ninja", "--version"),
    ("c++", "--version"),
)
VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")
PREFIXES = ("LATENTDEM_", "PYTORCH_", "TORCH_", "TRITON_")


def device_name() -> str:
    """Name of the GPU that PyTorch uses.

    Raises:
        SystemExit: there is none; the message says why.
    """
    try:
        import torch
    except ImportError as error:
        raise SystemExit(f"The GPU report needs PyTorch, which cannot be imported ({error}).") from None
    if torch.version.cuda is None:
        raise SystemExit(
            f"The GPU report needs a CUDA GPU, but PyTorch {torch.__version__} is built without CUDA."
        )
    if not torch.cuda.is_available():
        raise SystemExit("The GPU report needs a CUDA GPU, but PyTorch sees none.")
    return torch.cuda.get_device_name()


def architecture() -> str:
    """The GPU's architecture as nvcc names it, such as "90"."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}"


def environment(root: Path) -> dict[str, Any]:
    """Description of the environment, ready for a JSON file."""
    import torch

    return {
        "devices": [_device(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())],
        "nvidia-smi": _output_of(
            "nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv"
        ),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "programs": {name: _output_of(name, *options) for name, *options in PROGRAMS},
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in VARIABLES or name.startswith(PREFIXES)
        },
        "commit": _output_of("git", "-C", str(root), "describe", "--always", "--dirty"),
    }


def _device(properties: Any) -> dict[str, Any]:
    return {
        "name": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": round(properties.total_memory / 1e9, 1),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _output_of(program: str, *options: str) -> str:
    """Output of a program; "" where it is missing or fails."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        run = subprocess.run([path, *options], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
