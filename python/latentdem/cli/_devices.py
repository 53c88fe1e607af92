"""The device of this process, and the prior on it."""

from __future__ import annotations

import os
from typing import Any


def own_device(name: str) -> str:
    """The device called `name`, or the GPU of this process where several share a machine.

    Raises:
        UserError: there is no such device.
    """
    import torch

    from ..checks import resolve_device

    if name in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    resolve_device(name)
    return name


def shared_prior(name: str, device: str, precision: str, photographs: int, compile: bool = False) -> Any:
    """What to give to the restoration of each photograph: the prior, loaded once, or for one its name.

    Raises:
        UserError: see `load_prior`.
    """
    from ..checks import resolve_device
    from ..priors import load_prior

    return name if photographs == 1 else load_prior(name, resolve_device(device), precision, compile)
