"""LatentDEM: blind inverse problems with latent diffusion priors.

The names below are imported when they are first used, so that `latentdem --help` does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import deblur
    from .blind import BlindSearch
    from .e_steps import Posterior, Proximal
    from .errors import UserError
    from .operators import HQS, Blur
    from .pipeline import LatentDEMPipeline, LatentDEMPipelineOutput
    from .priors import DiffusersPrior, EmbeddedPrior, LatentPrior
    from .recipe import PAPER, Recipe, Start
    from .restoring import restore
    from .result import Restored, Result, State, TraceStep
    from .schedules import Annealing, Skip
    from .solver import LatentDEM
    from .stages import Pass
    from .trust import Annealed, MaximumLikelihood, ModellingError, MostCautious

__all__ = [
    "HQS",
    "PAPER",
    "Annealed",
    "Annealing",
    "BlindSearch",
    "Blur",
    "DiffusersPrior",
    "EmbeddedPrior",
    "LatentDEM",
    "LatentDEMPipeline",
    "LatentDEMPipelineOutput",
    "LatentPrior",
    "MaximumLikelihood",
    "ModellingError",
    "MostCautious",
    "Pass",
    "Posterior",
    "Proximal",
    "Recipe",
    "Restored",
    "Result",
    "Skip",
    "Start",
    "State",
    "TraceStep",
    "UserError",
    "deblur",
    "restore",
]

_MODULES = {
    "api": ("deblur",),
    "blind": ("BlindSearch",),
    "e_steps": ("Posterior", "Proximal"),
    "errors": ("UserError",),
    "operators": ("HQS", "Blur"),
    "pipeline": ("LatentDEMPipeline", "LatentDEMPipelineOutput"),
    "priors": ("DiffusersPrior", "EmbeddedPrior", "LatentPrior"),
    "recipe": ("PAPER", "Recipe", "Start"),
    "restoring": ("restore",),
    "result": ("Restored", "Result", "State", "TraceStep"),
    "schedules": ("Annealing", "Skip"),
    "solver": ("LatentDEM",),
    "stages": ("Pass",),
    "trust": ("Annealed", "MaximumLikelihood", "ModellingError", "MostCautious"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
