from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch

from latentdem.errors import UserError
from latentdem.operators.kernels import motion_kernels
from latentdem.priors.kernel_denoiser import SHIPPED, KernelDenoiser, load_kernel_denoiser


@pytest.fixture(scope="module")
def shipped() -> KernelDenoiser:
    return load_kernel_denoiser()


def noisy_kernels(size: int, level: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean kernels (8, 1, size, size) of sum about 1; `level` in units of each clean peak."""
    clean = motion_kernels(8, size, 0.5, seed=77)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return clean + level * clean.amax(dim=(1, 2, 3), keepdim=True) * noise, clean


# Measured at the four levels: 0.46 to 0.28, 0.29 to 0.16, 0.16 to 0.09, 0.12 to 0.07, 0.11 to 0.07.
@pytest.mark.parametrize(("size", "remaining"), [(9, 0.55), (17, 0.35), (33, 0.2), (64, 0.15), (129, 0.15)])
@pytest.mark.parametrize("level", [0.005, 0.02, 0.05, 0.1])
def test_shipped_weights_remove_noise(
    shipped: KernelDenoiser, size: int, remaining: float, level: float
) -> None:
    noisy, clean = noisy_kernels(size, level)
    error = (shipped.denoise(noisy, level) - clean).square().mean().sqrt()
    assert error < remaining * (noisy - clean).square().mean().sqrt()


def test_weak_noise_changes_little(shipped: KernelDenoiser) -> None:
    clean = motion_kernels(4, 33, 0.5, seed=3)
    peak = clean.amax()
    assert (shipped.denoise(clean, 1e-4) - clean).abs().max() < 1e-3 * peak


def test_scale_does_not_matter_and_samples_are_independent(shipped: KernelDenoiser) -> None:
    noisy, _ = noisy_kernels(21, 0.05)
    scales = torch.logspace(-3, 3, 8).view(-1, 1, 1, 1)
    levels = torch.linspace(0.01, 0.1, 8)
    together = shipped.denoise(scales * noisy, levels)
    for i in range(8):
        alone = shipped.denoise(noisy[i : i + 1], float(levels[i]))
        torch.testing.assert_close(
            together[i : i + 1], scales[i] * alone, rtol=1e-4, atol=1e-6 * float(scales[i])
        )


def test_kernels_without_a_positive_value_come_back_as_zeros(shipped: KernelDenoiser) -> None:
    kernels = torch.stack([torch.zeros(1, 9, 9), -torch.ones(1, 9, 9), torch.rand(1, 9, 9)])
    denoised = shipped.denoise(kernels, 0.05)
    assert denoised[:2].abs().max() == 0
    assert denoised[2].abs().max() > 0


def test_shipped_weights_are_small_and_run_in_float32(shipped: KernelDenoiser) -> None:
    assert not shipped.training
    assert {p.dtype for p in shipped.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in shipped.parameters())
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 100_000


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    model = KernelDenoiser(layers=3, channels=4)
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_kernel_denoiser(tmp_path)
    x = torch.rand(2, 1, 11, 11)
    torch.testing.assert_close(model(x, 0.1), again(x, torch.tensor([0.1, 0.1])))


def damage_missing_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_truncated(folder: Path) -> None:
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def damage_wrong_shape(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "channels": 8}))


def damage_other_layers(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layers": 4}))


@pytest.mark.parametrize(
    "damage", [damage_missing_config, damage_truncated, damage_wrong_shape, damage_other_layers]
)
def test_damaged_weights_are_one_clear_sentence(tmp_path: Path, damage: object) -> None:
    KernelDenoiser(layers=3, channels=4).save_pretrained(tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match="weights") as caught:
        load_kernel_denoiser(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_such_folder"):
        load_kernel_denoiser(tmp_path / "no_such_folder")
