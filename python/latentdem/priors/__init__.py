"""Latent diffusion priors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checks import resolve_precision
from ..errors import UserError
from .base import LatentPrior
from .compilation import compile_networks
from .conditions import Condition
from .embedded import EMBEDDED_WEIGHTS, EmbeddedPrior
from .prior_names import PriorNames

if TYPE_CHECKING:
    from .diffusers_prior import DiffusersPrior
    from .pixel_prior import PixelPrior

__all__ = [
    "EMBEDDED_WEIGHTS",
    "Condition",
    "DiffusersPrior",
    "EmbeddedPrior",
    "LatentPrior",
    "PixelPrior",
    "load_prior",
]

_PIXEL_FILES = (".pt", ".pth")


def __getattr__(name: str) -> Any:
    if name == "DiffusersPrior":
        return _published()
    if name == "PixelPrior":
        return _pixel_prior()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _published() -> type[DiffusersPrior]:
    try:
        from .diffusers_prior import DiffusersPrior
    except RuntimeError as error:  # diffusers' way to say that one of its own imports failed
        if sys.flags.optimize < 2:
            raise
        raise ImportError(
            "transformers cannot be imported without docstrings; use python -O instead of -OO, or uninstall it."
        ) from error
    return DiffusersPrior


def _pixel_prior() -> type[PixelPrior]:
    from .pixel_prior import PixelPrior

    return PixelPrior


NAMES = PriorNames(
    embedded="embedded",
    weights=EMBEDDED_WEIGHTS,
    native=EmbeddedPrior,
    published=_published,
    aliases={"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
)


def load_prior(
    prior: str | Path | LatentPrior, device: torch.device, precision: str = "auto", compile: bool = False
) -> LatentPrior:
    """Loads the prior called `prior` without a download.

    Args:
        prior: "embedded"; "sd15" (Stable Diffusion 1.5); a folder written by tools/train_prior.py, or one in
            diffusers' layout with model_index.json; a .ckpt or .safetensors file of Stable Diffusion in its
            original layout; a .pt or .pth file of a pixel-space model in the layout of the guided-diffusion
            code; the id "owner/name" of a checkpoint in the cache of the Hugging Face hub; or a prior itself,
            which is returned.
        device: where the networks run.
        precision: what they compute in, "float32", "bfloat16" or "float16"; "auto" for bfloat16 where it is
            fast with the embedded prior, and float16 on CUDA with others. No matter for a prior itself.
        compile: have PyTorch compile the networks when they are first called. No matter for a prior itself.

    Raises:
        UserError: there is no such prior or precision, its weights are not on this machine or cannot be
            loaded, or PyTorch cannot compile here.
    """
    if isinstance(prior, (str, Path)) and Path(prior).suffix in _PIXEL_FILES:
        dtype = resolve_precision(precision) or (torch.float16 if device.type == "cuda" else torch.float32)
        loaded: LatentPrior = _pixel_prior().from_file(prior, device, dtype)
    else:
        loaded = NAMES.load(prior, device, precision)
    if compile and isinstance(prior, (str, Path)):
        compile_networks(loaded, device)
    if not hasattr(loaded, "predict_noise"):
        raise UserError(f"A prior is a name, a path or an object as `LatentPrior`, not {type(prior).__name__}.")
    return loaded
