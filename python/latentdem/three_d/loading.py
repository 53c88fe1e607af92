"""View-conditioned priors by name."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import UserError
from .view_prior import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior, ViewPrior


def load_view_prior(prior: str | Path | ViewPrior, device: torch.device) -> ViewPrior:
    """The prior that `prior` names, on `device`.

    Args:
        prior: "embedded-3d", a folder written by tools/train_view_prior.py, or a prior itself, which is
            returned.
        device: where the networks run.

    Raises:
        UserError: there is no such prior, or it cannot be loaded.
    """
    if not isinstance(prior, (str, Path)):
        return prior
    if str(prior) != "embedded-3d":
        return EmbeddedViewPrior.from_pretrained(prior, device)
    if not EMBEDDED_3D_WEIGHTS.is_dir():
        raise UserError(
            "No weights of the embedded view-conditioned prior are installed; train them with "
            "tools/train_view_prior.py and give the exported folder as the prior."
        )
    return EmbeddedViewPrior.from_pretrained(EMBEDDED_3D_WEIGHTS, device)
