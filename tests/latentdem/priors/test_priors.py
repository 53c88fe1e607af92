from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentdem import EmbeddedPrior, LatentPrior, UserError
from latentdem.priors import EMBEDDED_WEIGHTS, embedded, load_prior
from latentdem.priors.autoencoder import EmbeddedAutoencoder
from latentdem.priors.embedded import bfloat16_is_fast
from latentdem.priors.loading import load_network
from latentdem_ext import use_backend

Scene = Callable[..., Tensor]
CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_prior: EmbeddedPrior, tmp_path: Path) -> Path:
    """A prior on disk, in the layout that tools/train_prior.py writes."""
    tiny_prior.autoencoder.save_pretrained(tmp_path / "autoencoder")
    tiny_prior.unet.save_pretrained(tmp_path / "unet")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        tmp_path / "scheduler"
    )
    return tmp_path


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47), (16, 100)])
def test_any_size_is_padded_and_cropped(
    tiny_prior: EmbeddedPrior, scene: Scene, height: int, width: int
) -> None:
    assert isinstance(tiny_prior, LatentPrior)
    z = tiny_prior.encode(scene(height, width))
    assert z.shape == (1, *tiny_prior.latent_shape(height, width))
    assert tiny_prior.decode(z, height, width).shape == (1, 3, height, width)
    assert tiny_prior.predict_noise(z, 500).shape == z.shape


def test_padding_leaves_the_image_unchanged(tiny_prior: EmbeddedPrior, scene: Scene) -> None:
    x = scene(32, 40)
    padded = torch.nn.functional.pad(x, (0, -40 % tiny_prior.multiple, 0, 0), mode="replicate")
    assert torch.equal(tiny_prior.encode(x), tiny_prior.autoencoder.encode(padded))


def test_saved_prior_is_loaded_unchanged(tiny_prior: EmbeddedPrior, folder: Path, scene: Scene) -> None:
    loaded = load_prior(folder, CPU)
    x = scene(32, 32)
    tolerance = {"atol": 0.05, "rtol": 0.05} if bfloat16_is_fast(CPU) else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(loaded.encode(x), tiny_prior.encode(x), **tolerance)
    torch.testing.assert_close(loaded.alphas_cumprod, tiny_prior.alphas_cumprod)
    assert loaded.encode(x).dtype == torch.float32


def test_networks_compute_in_float32_when_a_backend_is_requested(
    tiny_prior: EmbeddedPrior, folder: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "bfloat16_is_fast", lambda device: True)
    monkeypatch.setattr(embedded, "convolves_fast_in_float32", lambda device: False)
    x = scene(32, 32)
    exact = tiny_prior.encode(x)
    with use_backend("reference"):
        torch.testing.assert_close(EmbeddedPrior.from_pretrained(folder).encode(x), exact)
    assert (EmbeddedPrior.from_pretrained(folder).encode(x) - exact).abs().max() > 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_what_was_asked_for(
    tiny_prior: EmbeddedPrior, folder: Path, scene: Scene, precision: str
) -> None:
    x = scene(32, 32)
    found, exact = load_prior(folder, CPU, precision).encode(x), tiny_prior.encode(x)
    assert found.dtype == torch.float32
    if precision == "float32":
        torch.testing.assert_close(found, exact)
    else:
        assert 1e-4 < (found - exact).abs().max() < 0.5


def test_networks_compute_in_float32_where_that_is_as_fast(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "bfloat16_is_fast", lambda device: True)
    for fast in (True, False):
        monkeypatch.setattr(embedded, "convolves_fast_in_float32", lambda device, fast=fast: fast)
        assert EmbeddedPrior.from_pretrained(folder)._autocast == (None if fast else torch.bfloat16)


def test_latent_statistics_are_part_of_the_configuration(tmp_path: Path, scene: Scene) -> None:
    model = EmbeddedAutoencoder(widths=(8, 16), latents_mean=[0.5] * 8, latents_std=[2.0] * 8)
    model.save_pretrained(tmp_path)
    loaded = load_network(EmbeddedAutoencoder, tmp_path)
    x = scene(16, 16)
    raw = model.moments(x)[0]
    torch.testing.assert_close(loaded.encode(x), (raw - 0.5) / 2)
    torch.testing.assert_close(loaded.decode(loaded.encode(x)), model.decoder(raw))


def test_prior_object_is_returned(tiny_prior: EmbeddedPrior) -> None:
    assert load_prior(tiny_prior, CPU) is tiny_prior
    with pytest.raises(UserError, match="a name, a path or an object as `LatentPrior`, not object"):
        load_prior(object(), CPU)  # type: ignore[arg-type]


def test_missing_part_is_named(folder: Path) -> None:
    (folder / "scheduler").rename(folder / "schedule")
    with pytest.raises(UserError, match="'scheduler' is missing"):
        load_prior(folder, CPU)


def test_weights_of_the_wrong_shape_are_refused(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_in.weight"] = state["conv_in.weight"][:3].contiguous()
    save_file(state, weights)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_prior(folder, CPU)


def test_missing_weights_are_named(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    del state["conv_in.weight"]
    save_file(state, weights)
    with pytest.raises(UserError, match="not those of a UNet"):
        load_prior(folder, CPU)


def test_damaged_file_is_named(folder: Path) -> None:
    (folder / "autoencoder" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_prior(folder, CPU)


def test_unknown_prior_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown prior 'sd99'"):
        load_prior("sd99", CPU)


def test_shipped_weights_fit_in_the_wheel() -> None:
    size = sum(path.stat().st_size for path in EMBEDDED_WEIGHTS.rglob("*") if path.is_file())
    assert 1e6 < size <= 24e6
    config = json.loads((EMBEDDED_WEIGHTS / "autoencoder" / "config.json").read_text())
    assert len(config["latents_std"]) == config["latent_channels"] == 8


def test_shipped_prior_reconstructs_and_denoises(scene: Scene) -> None:
    """A smooth scene survives the autoencoder, and noise is recognised as noise."""
    prior = load_prior("embedded", CPU)
    x = torch.nn.functional.interpolate(scene(10, 10) / 2, (64, 64), mode="bicubic")
    z = prior.encode(x)
    assert (prior.decode(z, 64, 64) - x).square().mean() < 0.01
    a = prior.alphas_cumprod[400]
    noise = torch.randn_like(z)
    predicted = prior.predict_noise(a.sqrt() * z + (1 - a).sqrt() * noise, 400)
    assert (predicted - noise).square().mean() < 0.5
