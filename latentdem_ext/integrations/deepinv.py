"""deepinv: `LatentDEMReconstructor`, `KernelDenoiser`, `KernelMSE` and `KernelMNC`.

    from latentdem_ext.integrations.deepinv import LatentDEMReconstructor

The solver that they need is in `latentdem`, which uses this package and not the other way round. So nothing is
imported here; a name is looked up in `latentdem.integrations.deepinv` when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("latentdem.integrations.deepinv"), name)
