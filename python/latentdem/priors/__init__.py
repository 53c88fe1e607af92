"""Latent diffusion priors."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..errors import UserError
from .base import LatentPrior
from .conditions import Condition
from .diffusers_prior import DiffusersPrior
from .embedded import EMBEDDED_WEIGHTS, EmbeddedPrior

__all__ = ["EMBEDDED_WEIGHTS", "Condition", "DiffusersPrior", "EmbeddedPrior", "LatentPrior", "load_prior"]

SHORT_NAMES = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
FILES = (".ckpt", ".safetensors")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_prior(prior: str | Path | LatentPrior, device: torch.device) -> LatentPrior:
    """The prior that `prior` names; nothing is downloaded, and weights are in float16 on CUDA, else in float32.

    Args:
        prior: "embedded"; "sd15" (Stable Diffusion 1.5); a folder written by tools/train_prior.py, or one in
            diffusers' layout with model_index.json; a .ckpt or .safetensors file of Stable Diffusion in its
            original layout; the id "owner/name" of a checkpoint in the cache of the Hugging Face hub; or a
            prior itself, which is returned.
        device: where the networks run.

    Raises:
        UserError: no such prior, or its weights are not on this machine or cannot be loaded.
    """
    if not isinstance(prior, (str, Path)):
        return prior
    name = SHORT_NAMES.get(str(prior), str(prior))
    path = Path(name)
    if name == "embedded":
        return EmbeddedPrior.from_pretrained(EMBEDDED_WEIGHTS, device)
    if path.is_dir() and not (path / "model_index.json").exists():
        return EmbeddedPrior.from_pretrained(path, device)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    if path.suffix in FILES:
        return DiffusersPrior.from_single_file(path, torch_dtype=dtype, device=device, local_files_only=True)
    if path.is_dir() or HUB_ID.fullmatch(name):
        return DiffusersPrior.from_pretrained(name, torch_dtype=dtype, device=device, local_files_only=True)
    raise UserError(
        f"Unknown prior '{prior}'; give embedded, sd15, a folder, a .ckpt or .safetensors file, or the "
        "owner/name of a checkpoint on the Hugging Face hub."
    )
