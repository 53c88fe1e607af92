from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.files import write_json
from latentdem.metrics import image_metrics
from latentdem.operators.kernels import gaussian_kernel
from latentdem.output.report import build_report, peak_memory, versions
from latentdem.output.result import Result


def test_versions_and_memory() -> None:
    assert versions()["torch"].startswith(torch.__version__.split("+")[0])
    assert set(versions()) == {"python", "latentdem", "torch", "diffusers", "transformers", "numpy"}
    assert 50 < peak_memory()["resident_mb"] < 100_000


def test_report_is_strict_json(tmp_path: Path, scene: Callable[..., Tensor]) -> None:
    x = scene()
    settings = {"seed": 3, "device": "cpu", "path": Path("a"), "odd": math.nan}
    result = Result(
        x,
        gaussian_kernel(9, 2.0),
        x,
        torch.tensor([0.02]),
        torch.tensor([0.021]),
        [],
        {"search": 1.5},
        settings,
    )
    report = build_report(result, image=image_metrics(x, x), blurred=image_metrics(x / 2, x))
    write_json(tmp_path / "r.json", report)
    read = json.loads((tmp_path / "r.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["settings"] == {"seed": 3, "device": "cpu", "path": "a", "odd": None}
    assert read["size"] == {"height": 40, "width": 48}
    assert read["kernel_size"] == 9
    assert read["noise_sigma"] == pytest.approx(0.02)
    assert read["residual"] == pytest.approx(0.021)
    assert read["seconds"] == {"search": 1.5}
    assert read["metrics"]["result"]["psnr"] is None  # infinite
    assert read["metrics"]["result"]["shift"] == [0, 0]
    assert 5 < read["metrics"]["input"]["psnr"] < 40
    assert {"versions", "device", "threads", "backends", "peak_memory"} <= set(read)


def test_no_metrics_without_a_reference(scene: Callable[..., Tensor]) -> None:
    x = scene()
    result = Result(x, gaussian_kernel(9, 2.0), x, torch.tensor([0.02]), torch.tensor([0.02]))
    assert build_report(result)["metrics"] == {}


def test_all_types_of_values_become_json(tmp_path: Path) -> None:
    data = {
        "tensor": torch.tensor([1.0, math.inf]),
        "array": np.arange(2),
        "scalar": np.float32(0.5),
        "flag": True,
        "none": None,
        "tuple": (1, "a"),
        "dtype": torch.float32,
    }
    write_json(tmp_path / "a.json", data)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "tensor": [1.0, None],
        "array": [0, 1],
        "scalar": 0.5,
        "flag": True,
        "none": None,
        "tuple": [1, "a"],
        "dtype": "torch.float32",
    }


def test_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def full(self: Path, *args: object, **options: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="no space left on device"):
        write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
