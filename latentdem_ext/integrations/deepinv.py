"""Deprecated: `latentdem.integrations.deepinv` under its former name, for one release.

Nothing is imported here, because this package does not depend on `latentdem`: the module is loaded when a name
is looked up.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    warnings.warn(
        "latentdem_ext.integrations.deepinv has moved to latentdem.integrations.deepinv; "
        "the former name will be removed in the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(importlib.import_module("latentdem.integrations.deepinv"), name)
