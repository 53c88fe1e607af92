"""The standard deviation of image and kernel over the posterior samples."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import latentdem
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior
from latentdem.restoration.uncertainty import LEAST, SPREAD_FACTOR, uncertainty

Scene = Callable[..., Tensor]


def deblur(y: Tensor, prior: EmbeddedPrior, **options: object) -> latentdem.Result:
    return latentdem.deblur(y, prior=prior, noise_sigma=0.02, steps=3, device="cpu", **options)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("boundary", ["valid", "circular"])
def test_samples_give_a_map_of_the_standard_deviation(
    scene: Scene, tiny_prior: EmbeddedPrior, channels: int, boundary: str
) -> None:
    y = torch.cat([scene(20, 24, channels), scene(20, 24, channels, seed=1)])
    options = {"kernel": gaussian_kernel(5, 1), "boundary": boundary}
    result = deblur(y, tiny_prior, num_samples=5, **options)
    assert result.uncertainty is not None
    assert result.uncertainty.shape == (2, 1, 20, 24)
    assert (result.uncertainty > 0).all()
    assert torch.equal(result[1].uncertainty, result.uncertainty[1:])
    assert result.kernel_uncertainty is None
    assert deblur(y, tiny_prior, **options).uncertainty is None


def test_the_image_is_the_same_with_its_uncertainty(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    options = {"kernel": gaussian_kernel(5, 1)}
    plain, measured = (deblur(scene(20, 24), tiny_prior, num_samples=n, **options) for n in (1, 4))
    assert torch.equal(plain.tensor, measured.tensor)  # four samples are the least


def test_estimated_kernels_have_a_standard_deviation(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    result = deblur(scene(24, 24), tiny_prior, kernel_size=5, num_samples=4)
    assert result.kernel_uncertainty is not None
    assert result.kernel_uncertainty.shape == result.kernel.shape
    assert 0 < result.kernel_uncertainty.max() < 1


def test_large_photographs_have_a_map_of_all_tiles(
    scene: Scene, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentdem.search.layout.WORKING_SIZE", 32)
    monkeypatch.setattr("latentdem.search.layout.TILE_SIZE", 32)
    y = scene(60, 40)
    result = deblur(y, tiny_prior, kernel=gaussian_kernel(5, 1), boundary="valid", num_samples=4)
    assert result.uncertainty is not None
    assert result.uncertainty.shape == (1, 1, 60, 40)
    assert result.uncertainty.isfinite().all()


def test_samples_that_agree_leave_the_noise_and_the_texture_that_all_lack() -> None:
    spread = torch.zeros(2, 3, 9, 9)
    spread[1] = 0.1
    found = uncertainty(spread, torch.tensor([0.03, 0.0]), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(found[0], torch.full((1, 9, 9), (0.03**2 + LEAST**2) ** 0.5))
    expected = ((SPREAD_FACTOR * 0.1) ** 2 + LEAST**2) ** 0.5 / 2
    torch.testing.assert_close(found[1], torch.full((1, 9, 9), expected))
