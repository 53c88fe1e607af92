"""The examples of docs/reference/operations.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import latentdem_ext as ext

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "operations.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        exec(block, names)
    return names


def test_samples_explain_the_measurement(problem, example):
    """With the exact noise of a standard normal prior."""
    _, kernel, _ = problem(2, 3, (24, 20, 5), torch.float32)
    y = ext.blur(torch.randn(2, 3, 24, 20), kernel)
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    z = example["sample"](lambda z, t: (1 - abar[t]).sqrt() * z, y, kernel, abar, step_size=4)
    assert z.shape == y.shape
    left = ext.blur_fidelity(z, kernel, y).norm2.sqrt()
    assert (left < 0.5 * y.flatten(1).norm(dim=1)).all()


def test_m_step_finds_the_kernel(problem, example):
    x, kernel, _ = problem(2, 3, (24, 20, 5), torch.float32)
    start = torch.full_like(kernel, 1 / 25)
    actual = example["m_step"](x, ext.blur(x, kernel), start, torch.ones(2), lambda kernel: kernel)
    assert (actual - kernel).norm() < 1e-3 * kernel.norm()


def test_every_operation_is_described():
    text = DOCUMENT.read_text()
    for name in ext.__all__:
        if name not in ("Backend", "Fidelity", "HQSFactors", "kernel_to_otf", "requested_backend"):
            assert f"`{name}" in text or f"latentdem_ext.{name}" in text, name
