from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentdem import DiffusersPrior, UserError
from latentdem.priors import load_prior

from .conftest import in_cache
from .original_layout import original_state, save_as_lightning

Scene = Callable[..., Tensor]


@pytest.fixture(scope="module")
def files(sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights of `sd15` as .ckpt and .safetensors, and the configuration without weights."""
    folder = tmp_path_factory.mktemp("single")
    state = original_state(diffusers.StableDiffusionPipeline.from_pretrained(sd15, low_cpu_mem_usage=False))
    save_as_lightning(state, folder / "v1.ckpt")
    save_file(state, folder / "v1.safetensors")
    config = folder / "config"
    shutil.copytree(sd15, config, ignore=shutil.ignore_patterns("*.safetensors"))
    return {"ckpt": folder / "v1.ckpt", "safetensors": folder / "v1.safetensors", "config": config}


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_original_layout_gives_the_same_prior(
    sd15: Path, files: dict[str, Path], scene: Scene, kind: str
) -> None:
    text = {"prompt": "a photo", "negative_prompt": "a drawing", "guidance": 2.0}
    expected = DiffusersPrior.from_pretrained(sd15, **text)
    prior = DiffusersPrior.from_single_file(files[kind], config=files["config"], **text)
    assert prior.name == str(files[kind])
    x, z = scene(16, 24), torch.randn(1, 4, 8, 12)
    torch.testing.assert_close(prior.encode(x), expected.encode(x))
    torch.testing.assert_close(prior.decode(z, 16, 24), expected.decode(z, 16, 24))
    torch.testing.assert_close(prior.predict_noise(z, 500), expected.predict_noise(z, 500))
    torch.testing.assert_close(prior.alphas_cumprod, expected.alphas_cumprod)


def test_other_autoencoder_and_dtype(files: dict[str, Path], taesd: Path) -> None:
    options = {"config": files["config"], "vae": taesd, "torch_dtype": torch.bfloat16}
    prior = DiffusersPrior.from_single_file(files["safetensors"], **options)
    assert type(prior.vae).__name__ == "AutoencoderTiny"
    assert prior.unet.dtype == prior.vae.dtype == torch.bfloat16


def test_missing_configuration_names_the_remedy(files: dict[str, Path]) -> None:
    """Which one is inferred from the weights."""
    with pytest.raises(UserError, match=r"give a folder .* hf download stable-diffusion-v1-5/stable") as raised:
        load_prior(files["ckpt"], torch.device("cpu"))
    assert '--include "*.json" --include "*.txt"' in str(raised.value)


def test_configuration_in_the_cache(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_cache(files["config"], "stable-diffusion-v1-5/stable-diffusion-v1-5", tmp_path / "hub")
    prior = load_prior(files["safetensors"], torch.device("cpu"))
    assert isinstance(prior, DiffusersPrior)


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_files_without_a_checkpoint_are_refused(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load_prior(tmp_path / name, torch.device("cpu"))
    (tmp_path / name).write_bytes(b"not weights")
    for config in (None, files["config"]):
        with pytest.raises(UserError, match="cannot be read as a checkpoint of Stable Diffusion"):
            DiffusersPrior.from_single_file(tmp_path / name, config=config)


def test_file_that_names_other_classes(files: dict[str, Path], tmp_path: Path) -> None:
    """Reading them could run code; those of PyTorch Lightning are read as empty ones."""
    torch.save({"state_dict": {}, "other": Path("a")}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of Stable Diffusion"):
        DiffusersPrior.from_single_file(tmp_path / "other.ckpt", config=files["config"])


def test_file_without_a_network_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    """Such as the weights of an autoencoder alone, which have nothing for the U-Net."""
    state = load_file(files["safetensors"])
    part = {key: value for key, value in state.items() if key.startswith("first_stage_model.")}
    torch.save({"state_dict": part}, tmp_path / "vae.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of Stable Diffusion"):
        DiffusersPrior.from_single_file(tmp_path / "vae.ckpt", config=files["config"])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.diffusion_model.middle_block.0.in_layers.2.weight", "unet"),
        ("first_stage_model.decoder.mid.block_1.conv1.weight", "vae"),
    ],
)
def test_file_without_one_parameter_is_refused(
    files: dict[str, Path], taesd: Path, tmp_path: Path, name: str, part: str
) -> None:
    state = load_file(files["safetensors"])
    del state[name]
    torch.save({"state_dict": state}, tmp_path / "part.ckpt")
    with pytest.raises(UserError, match=f"weights of (its {part}|one of its networks) are missing"):
        DiffusersPrior.from_single_file(tmp_path / "part.ckpt", config=files["config"])
    if part == "vae":
        assert DiffusersPrior.from_single_file(tmp_path / "part.ckpt", config=files["config"], vae=taesd)
