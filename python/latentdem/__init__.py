"""LatentDEM: blind inverse problems with latent diffusion priors.

Public names are imported when they are first used, so that `latentdem --help` does not wait for PyTorch.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.deblur import deblur
    from .api.restore import restore
    from .errors import UserError
    from .operators import HQS, Blur
    from .output.result import Restored, Result
    from .pipeline import LatentDEMPipeline, LatentDEMPipelineOutput
    from .priors import DiffusersPrior, EmbeddedPrior, LatentPrior
    from .restoration.settings import Settings
    from .search.blind import BlindSearch
    from .search.config import PAPER, SearchConfig, Start
    from .solver.data_weight import Annealed, MaximumLikelihood, ModellingError, MostCautious
    from .solver.e_step import Posterior, Proximal
    from .solver.latentdem import LatentDEM
    from .solver.passes import Pass
    from .solver.schedules import Annealing, Skip
    from .solver.state import State, TraceStep

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
    "Restored",
    "Result",
    "SearchConfig",
    "Settings",
    "Skip",
    "Start",
    "State",
    "TraceStep",
    "UserError",
    "__version__",
    "deblur",
    "restore",
]

_MODULES = {
    "api.deblur": ("deblur",),
    "api.restore": ("restore",),
    "restoration.settings": ("Settings",),
    "errors": ("UserError",),
    "operators": ("HQS", "Blur"),
    "output.result": ("Restored", "Result"),
    "pipeline": ("LatentDEMPipeline", "LatentDEMPipelineOutput"),
    "priors": ("DiffusersPrior", "EmbeddedPrior", "LatentPrior"),
    "search.blind": ("BlindSearch",),
    "search.config": ("PAPER", "SearchConfig", "Start"),
    "solver.data_weight": ("Annealed", "MaximumLikelihood", "ModellingError", "MostCautious"),
    "solver.e_step": ("Posterior", "Proximal"),
    "solver.latentdem": ("LatentDEM",),
    "solver.passes": ("Pass",),
    "solver.schedules": ("Annealing", "Skip"),
    "solver.state": ("State", "TraceStep"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

# Old public names, kept for one release: where the object is now, and its new name.
_DEPRECATED = {"Recipe": ("search.config", "SearchConfig")}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name in _DEPRECATED:
        module, new_name = _DEPRECATED[name]
        warnings.warn(
            f"latentdem.{name} is called {new_name} now; the old name will go with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(f".{module}", __name__), new_name)
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
