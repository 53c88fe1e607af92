from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from latentdem.errors import UserError
from latentdem.operators.kernels import gaussian_kernel, motion_kernels
from latentdem.priors.kernel_refiner import SHIPPED, KernelRefiner, load_kernel_refiner


@pytest.fixture(scope="module")
def shipped() -> KernelRefiner:
    return load_kernel_refiner()


@pytest.mark.parametrize("size", [3, 9, 22, 75])
def test_kernels_of_any_size_stay_kernels(shipped: KernelRefiner, size: int) -> None:
    kernels = torch.cat([gaussian_kernel(size, 1.0), torch.full((1, 1, size, size), size**-2.0)])
    refined = shipped.refined(kernels, torch.tensor([0.002, 0.1]))
    assert refined.shape == kernels.shape
    assert refined.min() >= 0
    torch.testing.assert_close(refined.sum((1, 2, 3)), torch.ones(2))


def test_samples_are_independent(shipped: KernelRefiner) -> None:
    estimate = motion_kernels(8, 21, 0.5, seed=5)
    sigma = torch.linspace(0.002, 0.05, 8)
    together = shipped.refined(estimate, sigma)
    for i in range(8):
        torch.testing.assert_close(together[i : i + 1], shipped.refined(estimate[i : i + 1], sigma[i : i + 1]))


def test_an_untrained_network_whose_last_layer_is_zero_changes_nothing() -> None:
    model = KernelRefiner(channels=4)
    for weight in model.last.parameters():
        weight.data.zero_()
    kernels = motion_kernels(2, 15, 0.5, seed=0)
    torch.testing.assert_close(model.refined(kernels, torch.tensor([0.0, 0.01])), kernels)


def test_shipped_weights_are_small_and_run_in_float32(shipped: KernelRefiner) -> None:
    assert not shipped.training
    assert {p.dtype for p in shipped.parameters()} == {torch.float32}
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 700_000


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    model = KernelRefiner(channels=4)
    model.save_pretrained(tmp_path)
    x, sigma = torch.rand(2, 1, 11, 11), torch.tensor([0.01, 0.1])
    torch.testing.assert_close(model(x, sigma), load_kernel_refiner(tmp_path)(x, sigma))


def test_weights_of_another_shape_are_one_clear_sentence(tmp_path: Path) -> None:
    KernelRefiner(channels=4).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "channels": 8}))
    with pytest.raises(UserError, match="weights") as caught:
        load_kernel_refiner(tmp_path)
    assert "\n" not in str(caught.value)
