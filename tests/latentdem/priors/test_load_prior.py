"""What `load_prior`, `latentdem.deblur` and `--prior` take, and what they say when it is not there."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import latentdem
from latentdem import DiffusersPrior, UserError
from latentdem.io.images import write_image
from latentdem.priors import load_prior

from .conftest import in_cache

Scene = Callable[..., Tensor]
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5"])
def test_checkpoint_in_the_cache(sd15: Path, tmp_path: Path, name: str) -> None:
    in_cache(sd15, "stable-diffusion-v1-5/stable-diffusion-v1-5", tmp_path / "hub")
    prior = load_prior(name, CPU)
    assert isinstance(prior, DiffusersPrior)
    assert prior.name == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert prior.unet.dtype == torch.float32


def test_checkpoint_missing_from_the_cache(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hf download stable-diffusion-v1-5/stable-diffusion-v1-5 ") as raised:
        load_prior("sd15", CPU)
    for pattern in ("*.json", "*.txt", "*model.safetensors"):
        assert f'--include "{pattern}"' in str(raised.value)
    with pytest.raises(UserError, match=r"hf download owner/name .*model\.fp16\.safetensors"):
        DiffusersPrior.from_pretrained("owner/name", variant="fp16", local_files_only=True)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_part_missing_from_the_cache(sd15: Path, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sd15, folder)
    shutil.rmtree(folder / part)
    in_cache(folder, "owner/name", tmp_path / "hub")
    with pytest.raises(UserError, match=rf"{part}.*hf download owner/name"):
        load_prior("owner/name", CPU)
    with pytest.raises(UserError, match=part):
        load_prior(folder, CPU)


def test_alternative_autoencoder_missing_from_the_cache(sd15: Path) -> None:
    with pytest.raises(UserError, match="hf download madebyollin/taesd"):
        DiffusersPrior.from_pretrained(sd15, vae="madebyollin/taesd", local_files_only=True)


def test_variant_of_the_weights(stable_diffusion: Callable[..., Path]) -> None:
    folder = stable_diffusion(variant="fp16")
    assert list(folder.rglob("*.fp16.safetensors"))
    assert DiffusersPrior.from_pretrained(folder, variant="fp16", torch_dtype=torch.float16)
    with pytest.raises(UserError, match=r"cannot be (loaded|read)"):
        DiffusersPrior.from_pretrained(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_damaged_and_incomplete_weights(sd15: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(sd15, tmp_path, dirs_exist_ok=True)
    (file,) = (tmp_path / part).glob("*.safetensors")
    state = load_file(file)
    state.popitem()
    save_file(state, file, {"format": "pt"})
    with pytest.raises(UserError, match="are not those of a"):
        load_prior(tmp_path, CPU)
    file.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"cannot be (loaded|read)"):
        load_prior(tmp_path, CPU)


@pytest.mark.parametrize(
    ("part", "entry", "message"),
    [
        ("unet", ["diffusers", "Transformer2DModel"], "has a Transformer2DModel; a prior needs one of"),
        ("unet", None, "has no unet that can be used"),
        ("vae", ["diffusers", "AutoencoderKLWan"], "has a AutoencoderKLWan"),
        ("unet", ["evil", "os"], "has no unet that can be used"),
        ("scheduler", ["diffusers", "FlowMatchEulerDiscreteScheduler"], "flow matching"),
        ("scheduler", ["diffusers", "NoSuchScheduler"], "has no scheduler that can be used"),
    ],
)
def test_unsupported_checkpoints_are_refused(
    sd15: Path, tmp_path: Path, part: str, entry: list[str] | None, message: str
) -> None:
    shutil.copytree(sd15, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model_index.json"
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, part: entry}))
    with pytest.raises(UserError, match=message):
        load_prior(tmp_path, CPU)


def test_refiner_is_refused(sdxl: Path, tmp_path: Path) -> None:
    """It has only the second text encoder."""
    shutil.copytree(sdxl, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model_index.json"
    absent = {"text_encoder": [None, None], "tokenizer": [None, None]}
    file.write_text(json.dumps(json.loads(file.read_text()) | absent))
    with pytest.raises(UserError, match="embeddings have 16 channels and the U-Net takes 32"):
        load_prior(tmp_path, CPU)


def test_text_encoder_without_transformers(sd15: Path, ldm_vq4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "latentdem.priors.diffusers_checkpoint.find_spec",
        lambda name: None if name == "transformers" else find(name),
    )
    with pytest.raises(UserError, match="pip install transformers accelerate"):
        load_prior(sd15, CPU)
    assert load_prior(ldm_vq4, CPU)


@pytest.mark.parametrize("name", ["sd99", "owner/name/more", "/nowhere/at/all", "owner/"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="Unknown prior"):
        load_prior(name, CPU)


@pytest.mark.parametrize("layout", ["sd21", "ldm_vq4"])
@pytest.mark.parametrize("e_step", ["proximal", "posterior"])
def test_blind_deblurring(request: pytest.FixtureRequest, scene: Scene, layout: str, e_step: Any) -> None:
    folder = request.getfixturevalue(layout)
    options = {"kernel_size": 9, "steps": 2, "e_step": e_step, "device": "cpu", "noise_sigma": 0.02}
    result = latentdem.deblur(scene(16, 18), prior=folder, **options)
    assert result.image.shape == (1, 3, 16, 18)
    assert result.finite
    assert result.settings["prior"] == str(folder)


def test_prior_object_is_reported_by_its_name(sd15: Path, scene: Scene) -> None:
    prior = DiffusersPrior.from_pretrained(sd15)
    result = latentdem.deblur(scene(16, 16), kernel_size=3, steps=2, device="cpu", prior=prior)
    assert result.settings["prior"] == str(sd15)


def test_command_line(cli: Any, here: Path, sd15: Path, scene: Scene) -> None:
    write_image("small.png", scene(16, 18))
    options = ["--kernel-size", 5, "--steps", 2, "--device", "cpu", "--json", "r.json"]
    # Random networks explain nothing, hence the status.
    cli.run("deblur", "small.png", "--prior", sd15, "-o", "photo_deblurred.png", *options, status=3)
    assert json.loads((here / "r.json").read_text())["settings"]["prior"] == str(sd15)
    assert "photo_deblurred.png" in cli.names(here)


def test_command_line_names_the_download_command(cli: Any, here: Path) -> None:
    assert "hf download stable-diffusion-v1-5/" in cli.sentence(
        "deblur", "../photo.png", "--prior", "sd15", "--kernel-size", 9
    )
    help_text = " ".join(cli.run("deblur", "--help").stdout.split())
    for word in ("sd15", "OWNER/NAME", ".ckpt"):
        assert word in help_text
