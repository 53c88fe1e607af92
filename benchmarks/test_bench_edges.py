from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext
from latentdem_ext import reference

from .rows import DEVICE

# PyTorch is what runs on a GPU.
BACKENDS = ["reference", "cpp"] if DEVICE.type == "cpu" else ["reference"]
SIZE = 27


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [288, 480])
def test_l0_deconvolution(measure, side, backend):
    """Six hypotheses of one photograph at one scale of the gradient-based start."""
    x = torch.rand(6, 1, side // 8, side // 8, device=DEVICE).repeat_interleave(8, 2).repeat_interleave(8, 3)
    kernel = ext.project_kernel(torch.rand(6, 1, SIZE, SIZE, device=DEVICE) - 0.9)
    y, penalty = reference.blur(x, kernel), torch.full((6,), 4e-3, device=DEVICE)
    arguments = y, kernel, penalty, 8 * penalty, torch.full_like(penalty, 2), torch.full_like(penalty, 20)
    expected = reference.l0_deconvolution(*(value.double() for value in arguments))

    def run() -> torch.Tensor:
        return ext.l0_deconvolution(*arguments)

    measure("l0_deconvolution", backend, f"6 x 1 x {side} x {side}, K = {SIZE}", run, expected, 1e-2)
