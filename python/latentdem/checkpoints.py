"""Loading of network weights from disk, with one clear sentence when they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin

from .errors import UserError

Model = TypeVar("Model", bound=ModelMixin)


def load_network(kind: type[Model], folder: Path, device: torch.device | str = "cpu") -> Model:
    """A network in float32 for inference from a folder written by its `save_pretrained`.

    Args:
        kind: class of the network.
        folder: holds config.json and safetensors weights.
        device: where it will run.

    Raises:
        UserError: the folder or one of its files is missing, damaged or belongs to another network.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder of network weights at {folder}; check the path.")
    try:
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    except (
        Exception
    ) as error:  # diffusers and safetensors raise OSError, ValueError, RuntimeError and their own
        reason = " ".join(str(error).split())[:300].rstrip(" .:")
        raise UserError(f"The weights in {folder} cannot be loaded: {reason}.") from error
    # diffusers only warns when parameters are absent or unknown, and would go on with random ones.
    if report["missing_keys"] or report["unexpected_keys"]:
        raise UserError(f"The weights in {folder} are not those of a {kind.__name__}; give the right folder.")
    return model.eval().requires_grad_(False).to(device)
