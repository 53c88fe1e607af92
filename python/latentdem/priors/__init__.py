"""Latent diffusion priors."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import UserError
from .base import LatentPrior
from .embedded import EMBEDDED_WEIGHTS, EmbeddedPrior

__all__ = ["EMBEDDED_WEIGHTS", "EmbeddedPrior", "LatentPrior", "load_prior"]


def load_prior(prior: str | Path | LatentPrior, device: torch.device) -> LatentPrior:
    """The prior that `prior` names: "embedded", a folder written by tools/train_prior.py, or a prior itself.

    Raises:
        UserError: no such prior, or its weights cannot be loaded.
    """
    if not isinstance(prior, (str, Path)):
        return prior
    if str(prior) == "embedded":
        return EmbeddedPrior.from_pretrained(EMBEDDED_WEIGHTS, device)
    if not Path(prior).is_dir():
        raise UserError(f"Unknown prior '{prior}'; give 'embedded' or the folder of a prior.")
    return EmbeddedPrior.from_pretrained(prior, device)
