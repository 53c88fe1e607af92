from __future__ import annotations

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

from .rows import DEVICE, NATIVE

# PyTorch cannot compile definitions that wait for the device between iterations.
BACKENDS = ["reference", NATIVE]
SIZE, FRAME = 27, 16


def problem(batch: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, kernels, measurements of which a frame was not taken, and its mask."""
    noise = torch.rand(2, batch, 3, side, side, device=DEVICE) * 2 - 1
    x, x0 = (reference.blur(part, torch.full((batch, 1, 5, 5), 0.04, device=DEVICE)) for part in noise)
    kernel = ext.project_kernel(torch.rand(batch, 1, SIZE, SIZE, device=DEVICE) - 0.9)
    mask = torch.zeros(1, 1, side, side, device=DEVICE)
    mask[..., FRAME:-FRAME, FRAME:-FRAME] = 1
    return x0, kernel, mask * reference.blur(x, kernel), mask


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [192, 352])
def test_masked_proximal(measure, side, backend):
    x0, kernel, y, mask = problem(4, side)
    rho = torch.full((4,), 1e-3, device=DEVICE)
    exact = (value.double() for value in (x0, kernel, y, mask, rho))
    expected = reference.masked_proximal(*exact)
    shape = f"4 x 3 x {side} x {side}, K = {SIZE}"
    measure(
        "masked_proximal", backend, shape, lambda: ext.masked_proximal(x0, kernel, y, mask, rho), expected, 1e-3
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [192, 352])
def test_masked_kernel_solve(measure, side, backend):
    x, _, y, mask = problem(4, side)
    weight = torch.full((4,), 100.0, device=DEVICE)
    right = reference.blur_kernel_gradient(x, y, SIZE)
    arguments = x, mask, weight, right, None
    expected = reference.masked_kernel_solve(
        *(None if value is None else value.double() for value in arguments), 1e-4, 20
    )[0]

    def run() -> Tensor:
        return ext.masked_kernel_solve(*arguments, tolerance=1e-4, iterations=20)[0]

    measure("masked_kernel_solve", backend, f"4 x 3 x {side} x {side}, K = {SIZE}", run, expected, 1e-2)
