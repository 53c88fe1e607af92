"""Loads networks and noise schedules from disk, with one clear sentence where that fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file

from ..errors import UserError
from .network import WEIGHTS, Network
from .parametrization import Parametrization

SCHEDULE = "scheduler_config.json"
Model = TypeVar("Model", bound=Network)


def check_parts(path: Path, parts: Sequence[str], what: str, remedy: str) -> None:
    """Raises a UserError, which ends with `remedy`, unless the `what` at `path` has these subfolders."""
    for part in parts:
        if not (path / part).is_dir():
            raise UserError(f"No {what} at {path}: the folder '{part}' is missing; {remedy}.")


def load_network(kind: type[Model], folder: Path, device: torch.device | str = "cpu") -> Model:
    """Loads a network in float32 for inference from a folder written by its `save_pretrained`.

    Args:
        kind: class of the network.
        folder: folder with config.json and safetensors weights.
        device: where it will run.

    Raises:
        UserError: the folder or one of its files is missing, damaged or belongs to another network.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder of network weights at {folder}; check the path.")
    try:
        config = kind.load_config(folder)
        state = load_file(folder / WEIGHTS)
        with torch.device("meta"):  # without random weights, which would be overwritten
            model = kind.from_config(config)
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except Exception as error:  # OSError, ValueError, TypeError, RuntimeError and that of safetensors
        raise UserError(f"The weights in {folder} cannot be loaded: {reason_of(error)}.") from error
    if missing or unexpected:
        raise UserError(f"The weights in {folder} are not those of a {kind.__name__}; give the right folder.")
    return model.eval().requires_grad_(False).to(device)


def load_schedule(folder: Path) -> Parametrization:
    """Loads the noise schedule from a folder with the configuration of a scheduler of diffusers.

    Raises:
        UserError: the schedule is missing, damaged or of an unknown kind.
    """
    try:
        return Parametrization.from_config(json.loads((folder / SCHEDULE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"The schedule in {folder} cannot be read: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """What a library says went wrong, on one line and without its end."""
    return " ".join(str(error).split())[:300].rstrip(" .:")
