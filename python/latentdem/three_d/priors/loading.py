"""Loads view-conditioned priors by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...priors.prior_names import PriorNames
from .base import ViewPrior
from .embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior

if TYPE_CHECKING:
    from .zero123 import Zero123Prior


def _published() -> type[Zero123Prior]:
    from .zero123 import Zero123Prior

    return Zero123Prior


NAMES = PriorNames(
    embedded="embedded-3d",
    weights=EMBEDDED_3D_WEIGHTS,
    native=EmbeddedViewPrior,
    published=_published,
    aliases={"zero123": "kxic/zero123-165000", "zero123-xl": "ashawkey/zero123-xl-diffusers"},
)


def load_view_prior(prior: str | Path | ViewPrior, device: torch.device) -> ViewPrior:
    """Loads a prior by name, from local files only, in float16 on CUDA and otherwise in float32.

    Args:
        prior: "embedded-3d"; "zero123" or "zero123-xl"; a folder written by tools/train_view_prior.py, or one
            of Zero123 in diffusers' layout with model_index.json; a .ckpt or .safetensors file of Zero123 in
            its original layout; the id "owner/name" of a checkpoint of Zero123 in the cache of the Hugging Face
            hub; or a prior itself, which is returned.
        device: where the networks run.

    Raises:
        UserError: no such prior, or its weights are not on this machine or cannot be loaded.
    """
    return NAMES.load(prior, device)
