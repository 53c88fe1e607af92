"""Latent diffusion priors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .base import LatentPrior
from .conditions import Condition
from .embedded import EMBEDDED_WEIGHTS, EmbeddedPrior
from .prior_names import PriorNames

if TYPE_CHECKING:
    from .diffusers_prior import DiffusersPrior

__all__ = ["EMBEDDED_WEIGHTS", "Condition", "DiffusersPrior", "EmbeddedPrior", "LatentPrior", "load_prior"]


def __getattr__(name: str) -> Any:
    if name == "DiffusersPrior":
        return _published()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _published() -> type[DiffusersPrior]:
    from .diffusers_prior import DiffusersPrior

    return DiffusersPrior


NAMES = PriorNames(
    embedded="embedded",
    weights=EMBEDDED_WEIGHTS,
    native=EmbeddedPrior,
    published=_published,
    aliases={"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
)


def load_prior(prior: str | Path | LatentPrior, device: torch.device) -> LatentPrior:
    """Loads the prior called `prior` without a download, in float16 on CUDA and else in float32.

    Args:
        prior: "embedded"; "sd15" (Stable Diffusion 1.5); a folder written by tools/train_prior.py, or one in
            diffusers' layout with model_index.json; a .ckpt or .safetensors file of Stable Diffusion in its
            original layout; the id "owner/name" of a checkpoint in the cache of the Hugging Face hub; or a
            prior itself, which is returned.
        device: where the networks run.

    Raises:
        UserError: there is no such prior, or its weights are not on this machine or cannot be loaded.
    """
    return NAMES.load(prior, device)
