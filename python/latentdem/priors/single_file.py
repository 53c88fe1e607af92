"""Single-file checkpoints in the layout of the original code of latent diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
from huggingface_hub import snapshot_download
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..errors import UserError
from .diffusers_checkpoint import CONFIGURATION, DiffusersCheckpoint, download_command, require_transformers
from .loading import reason_of

PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}


def read_weights(path: str | Path, unreadable: str) -> dict[str, Tensor]:
    """The weights in a .ckpt or .safetensors file, without running code in it.

    Args:
        path: checkpoint file.
        unreadable: start of the error message where it cannot be read.

    Raises:
        UserError: there is no such file or no weights in it, or the package transformers is missing.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}; check the path.")
    require_transformers()
    try:
        with safe_globals(_lightning_classes(path)):
            return load_single_file_checkpoint(str(path))
    except Exception as error:  # unpickling can raise nearly anything
        raise UserError(f"{unreadable}: {reason_of(error)}.") from error


def network_of(
    state: dict[str, Tensor], part: str, kind: Any, folder: str, torch_dtype: torch.dtype, unreadable: str
) -> ModelMixin:
    """The "unet" or "vae" with its weights in `state`, configured by the folder of that name in `folder`.

    Raises:
        UserError: its configuration or some of its weights are missing or belong to another network.
    """
    try:
        network = kind.from_single_file(
            state, config=folder, subfolder=part, torch_dtype=torch_dtype, low_cpu_mem_usage=False
        )
    except Exception as error:  # OSError, ValueError, RuntimeError, KeyError and errors of diffusers
        raise UserError(f"{unreadable} with the configuration in {folder}: {reason_of(error)}.") from error
    _check_complete(network, _elements(state, PREFIXES[part]), part, unreadable)
    return network


def configuration(config: str, local_files_only: bool) -> str:
    """Folder of configuration files, from the cache of the hub or the hub where `config` is an id.

    Raises:
        UserError: it is in neither.
    """
    if Path(config).is_dir():
        return config
    try:
        return snapshot_download(config, allow_patterns=list(CONFIGURATION), local_files_only=local_files_only)
    except Exception as error:  # OSError, ValueError and the hub's own
        raise UserError(
            f"A single file holds no configuration, and that of '{config}' is not on this machine; give a "
            "folder in diffusers' layout as config, or download it with: "
            + download_command(config, CONFIGURATION)
        ) from error


def pipeline_of_file(
    path: str | Path,
    config: str | Path | None,
    torch_dtype: torch.dtype,
    vae: ModelMixin | None,
    local_files_only: bool,
) -> DiffusionPipeline:
    """The Stable Diffusion pipeline in a file of the original layout; see `DiffusersPrior.from_single_file`.

    Raises:
        UserError: there is no such file, no weights of Stable Diffusion in it, or no configuration for them.
    """
    unreadable = f"{path} cannot be read as a checkpoint of Stable Diffusion in its original layout"
    state = read_weights(path, unreadable)
    try:
        config = config or fetch_diffusers_config(state)["pretrained_model_name_or_path"]
        elements = {part: _elements(state, prefix) for part, prefix in PREFIXES.items()}
        del state
    except Exception as error:  # KeyError and errors of diffusers
        raise UserError(f"{unreadable}: {reason_of(error)}.") from error
    folder = configuration(str(config), local_files_only)
    index = DiffusersCheckpoint(folder).index
    is_xl = "text_encoder_2" in index
    kind = diffusers.StableDiffusionXLPipeline if is_xl else diffusers.StableDiffusionPipeline
    parts = {} if vae is None else {"vae": vae}
    if "safety_checker" in index:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        with safe_globals(_lightning_classes(path)):
            pipeline = kind.from_single_file(
                str(path), config=folder, torch_dtype=torch_dtype, local_files_only=True, **parts
            )
    except NotImplementedError as error:  # from accelerate: a parameter that is absent has no memory
        raise UserError(f"{unreadable}: weights of one of its networks are missing.") from error
    except Exception as error:  # OSError, ValueError, RuntimeError, KeyError and errors of diffusers
        raise UserError(f"{unreadable} with the configuration of {config}: {reason_of(error)}.") from error
    for part in elements.keys() - parts.keys():
        _check_complete(getattr(pipeline, part), elements[part], part, unreadable)
    return pipeline


def _elements(state: dict[str, Any], prefix: str) -> int:
    """Number of elements of the weights whose names begin with `prefix`."""
    return sum(value.numel() for key, value in state.items() if key.startswith(prefix))


def _check_complete(network: ModelMixin, elements: int, part: str, unreadable: str) -> None:
    """Raises a UserError for absent weights, which diffusers without accelerate leaves as initialised."""
    if elements < sum(parameter.numel() for parameter in network.parameters()):
        raise UserError(f"{unreadable}: weights of its {part} are missing.")


def _lightning_classes(path: str | Path) -> list[Any]:
    """Empty stand-ins for the classes of PyTorch Lightning that a .ckpt names, such as callbacks.

    Files written during training name such classes, and PyTorch would refuse to read their weights.
    """
    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # not an archive of torch.save; reading it raises the error
        return []
    places = (name.rpartition(".") for name in names if name.startswith("pytorch_lightning."))
    return [type(name, (), {"__module__": module}) for module, _, name in places]
