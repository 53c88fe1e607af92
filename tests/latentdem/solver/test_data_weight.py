from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem import Annealed, Blur, MaximumLikelihood, ModellingError, MostCautious
from latentdem.operators.kernels import gaussian_kernel
from latentdem.solver.data_weight import DataWeight, Prediction, most_likely

Scene = Callable[..., Tensor]


def rho(
    data_weight: DataWeight, operator: Blur, x0: Tensor, y: Tensor, variance: Tensor, t: int = 500
) -> Tensor:
    kernel = gaussian_kernel(9, 1.2).repeat(len(y), 1, 1, 1)
    return data_weight(Prediction(operator, x0, kernel, y, variance, torch.full_like(variance, 0.5), t))


@pytest.mark.parametrize(("t", "zeta"), [(1000, 10.0), (800, 5.5), (300, 1.0)])
def test_annealed_is_zeta_times_the_noise(scene: Scene, t: int, zeta: float) -> None:
    found = rho(Annealed(), Blur(9), scene(), scene(), torch.tensor([0.01]), t)
    assert found.item() == pytest.approx(zeta * 0.01 / 0.5)


def test_modelling_error_is_what_exceeds_the_noise(scene: Scene) -> None:
    x0, y = (torch.cat([scene(seed=seed) for seed in seeds]) for seeds in ((1, 2), (3, 4)))
    measured = (y - ext.blur(x0, gaussian_kernel(9, 1.2).repeat(2, 1, 1, 1))).square().mean((1, 2, 3))
    variance = torch.tensor([0.01, 1e6])
    found = rho(ModellingError(torch.tensor([2.0, 3.0])), Blur(9), x0, y, variance)
    expected = torch.stack([0.01 + 2 * (measured[0] - 0.01), torch.tensor(1e6)]) / 0.5
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(96, 128), (97, 95)])
@pytest.mark.parametrize("masked", [False, True])
def test_maximum_likelihood_finds_the_error_of_the_prediction(shape: tuple[int, int], masked: bool) -> None:
    """Predictions that are off by white noise of known variance, of two images in one batch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *shape, generator=generator) - 0.5
    truth = torch.tensor([1e-3, 3e-2])
    x0 = x + truth.sqrt().view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    y = ext.blur(x, gaussian_kernel(9, 1.2).repeat(2, 1, 1, 1))
    y = y + 0.02 * torch.randn(y.shape, generator=generator)
    mask = None
    if masked:
        mask = torch.zeros(1, 1, *shape)
        mask[..., 8:-8, 10:-5] = 1
    variance = torch.full((2,), 4e-4)
    found = variance / rho(MaximumLikelihood(), Blur(9, mask=mask), x0, y, variance)
    torch.testing.assert_close(found, truth, rtol=0.15, atol=0)


def test_maximum_likelihood_trusts_a_perfect_prediction(scene: Scene) -> None:
    x0, variance = scene(), torch.tensor([4e-4])
    y = ext.blur(x0, gaussian_kernel(9, 1.2))
    assert rho(MaximumLikelihood(), Blur(9), x0, y, variance).item() == pytest.approx(4e-4 * 10**4.5, rel=1e-3)


def test_most_cautious_is_the_greatest_ratio_of_each_image(scene: Scene) -> None:
    x0, variance = torch.cat([scene(seed=1), scene(seed=2)]), torch.tensor([4e-4, 4e-4])
    y = torch.cat([ext.blur(x0[:1], gaussian_kernel(9, 1.2)), scene(seed=3)])
    parts = (MaximumLikelihood(), ModellingError(1.0), Annealed())
    each = torch.stack([rho(part, Blur(9), x0, y, variance) for part in parts])
    assert torch.equal(rho(MostCautious(parts), Blur(9), x0, y, variance), each.amax(0))
    assert torch.equal(rho(MostCautious(), Blur(9), x0, y, variance), each[:2].amax(0))
    assert each[0, 0] > each[1, 0]  # the prediction is right
    assert each[0, 1] < each[1, 1]  # the kernel, or the image, is wrong


@pytest.mark.parametrize("masked", [False, True])
def test_both_variances_are_found(masked: bool) -> None:
    """The noise is three times that of the sensor, or equal to it; the predictions have known errors."""
    generator = torch.Generator().manual_seed(0)
    kernel = gaussian_kernel(9, 1.2).repeat(2, 1, 1, 1)
    x = torch.rand(2, 3, 96, 128, generator=generator) - 0.5
    error, noise, sensor = (
        torch.tensor([3e-2, 1e-3]),
        torch.tensor([0.06, 0.02]).square(),
        torch.full((2,), 4e-4),
    )
    x0 = x + error.sqrt().view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    y = ext.blur(x, kernel) + noise.sqrt().view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    mask = None
    if masked:
        mask = torch.zeros(1, 1, 96, 128)
        mask[..., 8:-8, 10:-5] = 1
    v, r2, _ = most_likely(Blur(9, mask=mask), x0, kernel, y, sensor)
    torch.testing.assert_close(v, noise, rtol=0.2, atol=0)
    torch.testing.assert_close(r2, error, rtol=0.35, atol=0)


def test_variance_is_at_least_that_of_the_sensor() -> None:
    kernel, x = (
        gaussian_kernel(9, 1.2),
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5,
    )
    v, r2, _ = most_likely(Blur(9), x, kernel, ext.blur(x, kernel), torch.tensor([4e-4]))
    assert v.item() == pytest.approx(4e-4)
    assert r2.item() == pytest.approx(10**-4.5, rel=1e-3)


def test_the_true_kernel_is_most_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 96, 96, generator=generator) - 0.5
    y = ext.blur(x, gaussian_kernel(9, 1.2)) + 0.05 * torch.randn(x.shape, generator=generator)
    x0 = x + 0.05 * torch.randn(x.shape, generator=generator)
    right, wide, narrow = (
        most_likely(Blur(9), x0, gaussian_kernel(9, s), y, torch.tensor([1e-4]))[2] for s in (1.2, 2.0, 0.6)
    )
    assert right > wide
    assert right > narrow
