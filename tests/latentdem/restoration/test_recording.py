from __future__ import annotations

import torch
import torch.nn.functional as F

from latentdem.operators.kernels import motion_kernels
from latentdem.restoration import recording
from latentdem.restoration.recording import Recording
from latentdem.solver.measurement import Measurement


def test_residuals_of_tall_photographs_are_those_of_their_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    size, height, width = 9, 2 * recording._ROWS + 37, 24
    x, y = (torch.rand(2, 3, height, width, generator=generator) for _ in range(2))
    mask = (torch.rand(2, 1, height, width, generator=generator) > 0.2).float()
    kernels = motion_kernels(2, size, 0.5, seed=0)
    photographs = Measurement(y, torch.full((2,), 0.01), mask, circular=False)
    found = Recording(photographs, torch.ones(2)).residual(x, kernels, photographs)
    for n in range(2):
        blurred = F.conv2d(x[n][:, None], kernels[n : n + 1].flip(-2, -1))[:, 0]  # without wrapping
        inside = slice(size // 2, height - size // 2), slice(size // 2, width - size // 2)
        square = (y[n][(slice(None), *inside)] - blurred).square().mean(0)
        counts = mask[n, 0][inside]
        torch.testing.assert_close(found[n], ((square * counts).sum() / counts.sum()).sqrt())
