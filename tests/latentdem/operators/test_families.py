from __future__ import annotations

import pytest
import torch

import latentdem_ext as ext
from latentdem.api.one_kernel import spread
from latentdem.operators import (
    AntiAliasing,
    Blur,
    DiskKernels,
    GaussianKernels,
    KernelFamily,
    RoundGaussianKernels,
    StridedBlur,
)
from latentdem.operators.kernels import gaussian_kernel
from latentdem_ext.reference.masked import masked_proximal

FAMILIES = [
    (GaussianKernels(), [[1.2, 3.0], [2.0, 0.6]]),
    (RoundGaussianKernels(), [[0.7], [3.5]]),
    (AntiAliasing(4), [[1.5], [2.9]]),
    (DiskKernels(), [[1.7], [6.2]]),
]


@pytest.mark.parametrize(("family", "values"), FAMILIES)
@pytest.mark.parametrize("size", [16, 17])
def test_a_family_finds_its_members(family: KernelFamily, values: list[list[float]], size: int) -> None:
    truth = torch.tensor(values)
    kernel = family.kernel(truth, size)
    assert kernel.shape == (2, 1, size, size)
    assert kernel.min() >= 0
    torch.testing.assert_close(kernel.sum((1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(family.fit(kernel), truth, rtol=0.02, atol=0)
    noisy = kernel + 0.02 * kernel.amax((1, 2, 3), keepdim=True) * torch.randn_like(kernel)
    torch.testing.assert_close(family.fit(noisy), truth, rtol=0.08, atol=0)


def test_a_round_gaussian_is_the_gaussian() -> None:
    found = RoundGaussianKernels().kernel(torch.tensor([[1.5]]), 13)
    torch.testing.assert_close(found, gaussian_kernel(13, 1.5), atol=1e-6, rtol=0)
    x_wide = GaussianKernels().kernel(torch.tensor([[3.0, 1.0]]), 13)[0, 0]
    assert x_wide[6, 0] > x_wide[0, 6]


@pytest.mark.parametrize(("family", "values"), FAMILIES)
def test_kernels_have_gradients(family: KernelFamily, values: list[list[float]]) -> None:
    parameters = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: family.kernel(p, 7), (parameters,))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_grid_of_super_resolution_matches_its_measurement(factor: int) -> None:
    """A ramp, averaged around the middle of every block, has the blocks' means."""
    ramp = torch.arange(16.0 * factor).expand(1, 1, 16 * factor, -1)
    y = torch.nn.functional.avg_pool2d(ramp, factor)
    up, mask = spread(y, factor)
    assert up.shape == ramp.shape
    assert mask.sum() == 16 * 16

    kernel = RoundGaussianKernels().kernel(torch.tensor([[factor / 3]]), 3 * factor - factor % 2)
    blurred = ext.blur(ramp, kernel)
    inside = mask.clone()
    inside[..., : 3 * factor] = 0
    inside[..., -3 * factor :] = 0
    torch.testing.assert_close(blurred * inside, up * inside, atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_closed_form_of_super_resolution(factor: int) -> None:
    """Against conjugate gradients of the same masked blur, and the spectrum against the dense matrix."""
    size, side = 6, 8 * factor
    kernel = torch.rand(2, 1, size, size, dtype=torch.float64)
    kernel = kernel / kernel.sum((2, 3), keepdim=True)
    y, mask = spread(torch.randn(2, 3, 8, 8, dtype=torch.float64), factor)
    mask = mask.double()
    x0, rho = torch.randn_like(y), torch.tensor([0.05, 0.5], dtype=torch.float64)
    strided, masked = StridedBlur(size, mask=mask, stride=factor), Blur(size, mask=mask)
    found = strided.proximal(x0, kernel, y, rho)
    solution, _ = masked_proximal(x0, kernel, y, mask, rho, tolerance=1e-9, iterations=1000)
    torch.testing.assert_close(found, solution, atol=1e-6, rtol=0)

    gain, power = strided.spectrum(x0, kernel, y)
    columns = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    each = ext.blur(columns, kernel[:1].expand(len(columns), -1, -1, -1))[:, 0]
    first = (factor - 1) // 2
    matrix = each[:, first::factor, first::factor].flatten(1).T
    expected = torch.linalg.eigvalsh(matrix @ matrix.T)
    torch.testing.assert_close(gain[0].sort().values, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(power.mean(1), masked.mean_square(x0, kernel, y))


def test_super_resolution_with_a_partial_mask_takes_iterations() -> None:
    y, mask = spread(torch.randn(1, 3, 16, 16, dtype=torch.float64), 2)
    mask = mask.double()
    mask[..., :8] = 0
    kernel, x0 = torch.ones(1, 1, 4, 4, dtype=torch.float64) / 16, torch.randn_like(y)
    rho = torch.tensor([0.3], dtype=torch.float64)
    found = StridedBlur(4, mask=mask, stride=2).proximal(x0, kernel, y, rho)
    torch.testing.assert_close(found, Blur(4, mask=mask).proximal(x0, kernel, y, rho, 300), atol=1e-3, rtol=0)
