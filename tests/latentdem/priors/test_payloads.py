"""Files of weights that would run code: every loader refuses them, and nothing of them is run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdem.errors import UserError
from latentdem.priors import EmbeddedPrior, load_prior
from latentdem.priors.diffusers_prior import DiffusersPrior
from latentdem.priors.embedded import EMBEDDED_WEIGHTS
from latentdem.priors.kernel_denoiser import load_kernel_denoiser
from latentdem.priors.kernel_diffusion import KernelDiffusion
from latentdem.priors.kernel_refiner import load_kernel_refiner

from ..payloads import WRITERS, Payload

CPU = torch.device("cpu")
LOADERS: list[tuple[Callable[[Path], object], str]] = [
    (EmbeddedPrior.from_pretrained, ""),
    (load_kernel_denoiser, "kernel_denoiser"),
    (load_kernel_refiner, "kernel_refiner"),
    (KernelDiffusion.from_pretrained, "kernel_diffusion"),
]


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    return Payload(tmp_path / "ran")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["a.pt", "a.ckpt", "a.safetensors"])
def test_single_files(tmp_path: Path, sd15: Path, payload: Payload, write: Any, name: str) -> None:
    write(tmp_path / name, payload)
    read = load_prior if name == "a.pt" else partial(DiffusersPrior.from_single_file, config=sd15)
    with pytest.raises(UserError, match="cannot be read as"):
        read(tmp_path / name, device=CPU)
    assert not payload.trace.exists()


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("unet", "diffusion_pytorch_model.bin"),
        ("vae", "diffusion_pytorch_model.bin"),
        ("text_encoder", "pytorch_model.bin"),
    ],
)
@pytest.mark.parametrize("renamed", [False, True])
def test_folders_of_diffusers(
    tmp_path: Path, sd15: Path, payload: Payload, write: Any, part: str, other: str, renamed: bool
) -> None:
    """Its libraries read pickles where there are no safetensors; a pickle may also have that name."""
    folder = shutil.copytree(sd15, tmp_path / "sd15")
    (weights,) = (folder / part).glob("*.safetensors")
    weights.unlink()
    write(weights if renamed else weights.with_name(other), payload)
    with pytest.raises(UserError, match=part):
        DiffusersPrior.from_pretrained(folder, prompt="a photo")
    assert not payload.trace.exists()


@pytest.mark.parametrize("write", WRITERS)
def test_own_networks(tmp_path: Path, payload: Payload, write: Any) -> None:
    folder = shutil.copytree(EMBEDDED_WEIGHTS, tmp_path / "embedded")
    files = list(folder.rglob("*.safetensors"))
    assert files
    for weights in files:
        weights.unlink()
        write(weights, payload)
        write(weights.with_suffix(".bin"), payload)
    for load, part in LOADERS:
        with pytest.raises(UserError, match="cannot be loaded"):
            load(folder / part)
    assert not payload.trace.exists()
