from __future__ import annotations

import torch

from latentdem.operators.kernels import motion_kernels
from latentdem.priors.kernel_refiner import load_kernel_refiner
from latentdem.restoration.kernel_search import _corrected
from latentdem.search.gradient_first import CAUTION, Found
from latentdem.solver.frame import Frame
from latentdem.solver.measurement import Measurement
from latentdem.solver.passes import Candidates


def test_corrections_count_as_far_as_the_model_explains_a_photograph() -> None:
    kernels, sigma, zero = motion_kernels(3, 15, 0.5, seed=0), torch.full((3,), 0.01), torch.zeros(3)
    candidates = Candidates(torch.zeros(3, 3, 20, 20), kernels, zero, zero, zero, [])
    window = Measurement(torch.zeros(3, 3, 20, 20), sigma)
    caution = CAUTION * torch.tensor([0.0, 0.5, 1.0])
    corrected = _corrected(Found(candidates, window, Frame.circular(20, 20), caution)).candidates.parameters
    refined = load_kernel_refiner().refined(kernels, sigma)
    torch.testing.assert_close(corrected[0], refined[0])
    torch.testing.assert_close(corrected[1], (kernels[1] + refined[1]) / 2)
    torch.testing.assert_close(corrected[2], kernels[2])
    assert not torch.allclose(refined[0], kernels[0], atol=1e-4)
