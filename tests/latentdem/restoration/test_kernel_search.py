from __future__ import annotations

import torch

from latentdem.operators.kernels import motion_kernels
from latentdem.priors import EmbeddedPrior
from latentdem.priors.kernel_denoiser import KernelDenoiser
from latentdem.priors.kernel_refiner import load_kernel_refiner
from latentdem.restoration.kernel_search import KernelSearch, _corrected
from latentdem.search.blind import BlindSearch
from latentdem.search.gradient_first import CAUTION, Found, GradientFirstSearch
from latentdem.search.layout import REGION_SIZE
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


def test_the_search_sees_the_edges_of_a_large_photograph(tiny_prior: EmbeddedPrior) -> None:
    y = torch.zeros(1, 3, 64, REGION_SIZE + 500)
    y[..., -700:] = torch.randn(1, 1, 64, 700, generator=torch.Generator().manual_seed(0))
    photograph = Measurement(y, torch.full((1,), 0.01), circular=False)
    blind = BlindSearch(tiny_prior, KernelDenoiser())
    region = KernelSearch(blind, GradientFirstSearch(blind)).region(photograph)
    assert region.size == (64, REGION_SIZE)
    assert region.y.abs().sum() > 0.99 * y.abs().sum()
    assert KernelSearch(blind).region(photograph) is photograph
    small = photograph.window(slice(0, 64), slice(0, REGION_SIZE))
    assert KernelSearch(blind, GradientFirstSearch(blind)).region(small) is small
