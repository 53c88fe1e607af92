"""Loads networks and noise schedules from disk, with one clear sentence where that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDPMScheduler
from diffusers.models.modeling_utils import ModelMixin

from ..errors import UserError

Model = TypeVar("Model", bound=ModelMixin)


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
    options = {"local_files_only": True, "use_safetensors": True, "torch_dtype": torch.float32}
    model, report = _load(kind, folder, ".", options)
    if report["missing_keys"] or report["unexpected_keys"]:
        raise UserError(f"The weights in {folder} are not those of a {kind.__name__}; give the right folder.")
    return model.to(device)


def load_schedule(folder: Path) -> DDPMScheduler:
    """Loads the noise schedule from a folder written by its `save_pretrained`.

    Raises:
        UserError: the schedule is missing or damaged.
    """
    try:
        return DDPMScheduler.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"The schedule in {folder} cannot be read: {error}") from error


def load_part(kind: type[Model], source: str, subfolder: str, remedy: str, **options: Any) -> Model:
    """Loads a network for inference from a checkpoint of several parts; weights it does not use are ignored.

    Args:
        kind: class of the network.
        source: folder, or id on the Hugging Face hub.
        subfolder: subfolder of this part, "" for none.
        remedy: end of the error message.
        options: options of `from_pretrained` in diffusers.

    Raises:
        UserError: its configuration or weights are missing, damaged or incomplete.
    """
    model, report = _load(kind, source, remedy, {**options, "subfolder": subfolder})
    if report["missing_keys"]:
        place = f"{source}/{subfolder}".rstrip("/")
        raise UserError(f"The weights in {place} are not those of a {kind.__name__}{remedy}")
    return model


def reason_of(error: Exception) -> str:
    """What a library says went wrong, on one line and without its end."""
    return " ".join(str(error).split())[:300].rstrip(" .:")


def _load(
    kind: type[Model], source: str | Path, remedy: str, options: dict[str, Any]
) -> tuple[Model, dict[str, Any]]:
    """The network and which parameters were absent or unknown: of these diffusers only warns."""
    try:
        model, report = kind.from_pretrained(
            source, low_cpu_mem_usage=False, output_loading_info=True, **options
        )
    except (
        Exception
    ) as error:  # diffusers and safetensors raise OSError, ValueError, RuntimeError and their own
        place = f"{source}/{options.get('subfolder', '')}".rstrip("/")
        raise UserError(f"The weights in {place} cannot be loaded: {reason_of(error)}{remedy}") from error
    return model.eval().requires_grad_(False), report
