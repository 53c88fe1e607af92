"""Reports of a run and its results, as plain data for a JSON file."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..metrics import ImageMetrics
    from .result import Restored, Result

_PACKAGES = ("latentdem", "torch", "diffusers", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that its results depend on."""
    installed = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def backends() -> dict[str, str]:
    """Backends of the accelerated operations by name: "available", or the reason why not."""
    import latentdem_ext

    return {name: str(state) for name, state in latentdem_ext.backends().items()}


def peak_memory() -> dict[str, float]:
    """Peak memory of this process so far in MB: resident, and on the GPU where one was used."""
    peak: dict[str, float] = {}
    if sys.platform != "win32":
        import resource

        # Linux counts kilobytes, macOS bytes.
        unit = 1e6 if sys.platform == "darwin" else 1e3
        peak["resident_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    if torch.cuda.is_initialized():
        of_each = (torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        peak["cuda_mb"] = round(max(of_each) / 1e6, 1)  # of the one that was used, which need not be current
    return peak


def build_report(
    result: Result,
    *,
    image: ImageMetrics | None = None,
    blurred: ImageMetrics | None = None,
) -> dict[str, Any]:
    """The report of one deblurred image, ready for `write_json`.

    Args:
        result: result of one image.
        image: quality of the result, where a reference is known.
        blurred: quality of the input, where a reference is known.
    """
    measured = {"result": image, "input": blurred}
    estimated = {
        "model_error": result.model_error,
        "unexplained": result.unexplained,
        "coverage": result.coverage,
        "lead": result.lead,
        "uncertainty": result.mean_uncertainty,
    }
    return {
        **_run(result),
        "kernel_size": result.kernel.shape[-1],
        "explained": bool(result.explained[0]),
        **{name: None if value is None else round(float(value[0]), 6) for name, value in estimated.items()},
        "metrics": {name: asdict(value) for name, value in measured.items() if value is not None},
    }


def build_restored_report(result: Restored) -> dict[str, Any]:
    """The report of one image restored with any operator, with its scalar parameters."""
    numbers = {name: value[0] for name, value in result.parameters.items() if value[0].numel() == 1}
    return {**_run(result), "parameters": {name: float(value) for name, value in numbers.items()}}


def _run(result: Result | Restored) -> dict[str, Any]:
    return {
        "settings": result.settings,
        "versions": versions(),
        "device": result.settings.get("device"),
        "threads": torch.get_num_threads(),
        "backends": backends(),
        "size": {"height": result.tensor.shape[-2], "width": result.tensor.shape[-1]},
        "noise_sigma": round(float(result.noise_sigma[0]), 6),
        "residual": round(float(result.residual[0]), 6),
        "seconds": result.seconds,
        "peak_memory": peak_memory(),
    }
