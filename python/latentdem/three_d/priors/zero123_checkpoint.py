"""Reads checkpoints of Zero123 in both layouts of diffusers and in that of the original code."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from ...errors import UserError
from ...priors.diffusers_checkpoint import DiffusersCheckpoint
from ...priors.loading import reason_of
from ...priors.parametrization import Parametrization
from ...priors.single_file import configuration, network_of, read_weights

POSE_CHANNELS = 4
# Folder of the projection and name of its layer in the two published pipelines.
PROJECTIONS = {"clip_camera_projection": "proj", "cc_projection": "projection"}
EXPECTED = "Zero123"
CONFIGURED_BY = "ashawkey/zero123-xl-diffusers"  # all checkpoints of the original code have the same shape
CLIP = "cond_stage_model.model.visual."
CLIP_NAMES = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.": "vision_model.embeddings.patch_embedding.",
    "ln_pre.": "vision_model.pre_layrnorm.",
    "ln_post.": "vision_model.post_layernorm.",
    "transformer.resblocks.": "vision_model.encoder.layers.",
    "proj": "visual_projection.weight",
}
CLIP_LAYER_NAMES = {
    ".attn.out_proj.": ".self_attn.out_proj.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}


@dataclass(frozen=True)
class Zero123Parts:
    """Networks and diffusers scheduler of a checkpoint of Zero123."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    image_encoder: Any
    projection: nn.Linear
    scheduler: Any


class _Projection(ModelMixin, ConfigMixin):
    """One linear layer, stored in its own folder."""

    @register_to_config
    def __init__(self, layer: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.add_module(layer, nn.Linear(inputs, outputs))


def parts_of_checkpoint(
    source: str, torch_dtype: torch.dtype, variant: str | None, local_files_only: bool
) -> Zero123Parts:
    """Parts of a folder or hub id in diffusers' layout; see `Zero123Prior.from_pretrained`."""
    checkpoint = DiffusersCheckpoint(source, torch_dtype, variant, local_files_only, EXPECTED)
    folders = [name for name in PROJECTIONS if name in checkpoint.index]
    if not folders:
        raise UserError(
            f"{source} has no projection of a pose ({' or '.join(PROJECTIONS)}); "
            f"give a checkpoint of {EXPECTED}."
        )
    scheduler = checkpoint.scheduler()
    Parametrization.of(scheduler)  # fails before gigabytes are read
    encoder, unet = checkpoint.encoder("image_encoder"), checkpoint.unet()
    layer = PROJECTIONS[folders[0]]
    # One of the layouts does not state these sizes in its configuration.
    inputs = encoder.config.projection_dim + POSE_CHANNELS
    sizes = {"layer": layer, "inputs": inputs, "outputs": unet.config["cross_attention_dim"]}
    projection = checkpoint.part(_Projection, folders[0], **sizes)
    return Zero123Parts(checkpoint.autoencoder(), unet, encoder, projection.get_submodule(layer), scheduler)


def parts_of_file(
    path: str | Path, config: str | Path | None, torch_dtype: torch.dtype, local_files_only: bool
) -> Zero123Parts:
    """Parts of a file in the original layout; see `Zero123Prior.from_single_file`."""
    unreadable = f"{path} cannot be read as a checkpoint of Zero123 in its original layout"
    state = read_weights(path, unreadable)
    weight, bias = (state.get(f"cc_projection.{name}") for name in ("weight", "bias"))
    if weight is None or bias is None:
        raise UserError(f"{unreadable}: it has no projection of a pose.")
    folder = configuration(str(config or CONFIGURED_BY), local_files_only)
    scheduler = DiffusersCheckpoint(folder, expected=EXPECTED).scheduler()
    projection = nn.Linear(weight.shape[1], weight.shape[0])
    projection.load_state_dict({"weight": weight, "bias": bias})
    return Zero123Parts(
        network_of(state, "vae", AutoencoderKL, folder, torch_dtype, unreadable),
        network_of(state, "unet", UNet2DConditionModel, folder, torch_dtype, unreadable),
        _image_encoder(state, folder, unreadable).to(torch_dtype),
        projection,
        scheduler,
    )


def _image_encoder(state: dict[str, Tensor], folder: str, unreadable: str) -> Any:
    clip = import_module("transformers")  # optional, and too large to check types through
    original = {key.removeprefix(CLIP): value for key, value in state.items() if key.startswith(CLIP)}
    try:
        config = clip.CLIPVisionConfig.from_pretrained(folder, subfolder="image_encoder", local_files_only=True)
        encoder = clip.CLIPVisionModelWithProjection(config).eval()
        encoder.load_state_dict(_clip_state(original))
    except Exception as error:  # OSError, ValueError, RuntimeError
        raise UserError(f"{unreadable}, its image encoder: {reason_of(error)}.") from error
    return encoder


def _clip_state(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of CLIP's image encoder under the names of transformers."""
    state = {}
    for key, value in original.items():
        start = next((start for start in CLIP_NAMES if key.startswith(start)), "")
        name = CLIP_NAMES.get(start, "") + key.removeprefix(start)
        for old, new in CLIP_LAYER_NAMES.items():
            name = name.replace(old, new)
        if ".attn.in_proj_" in name:
            layer, kind = name.split(".attn.in_proj_")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                state[f"{layer}.self_attn.{part}_proj.{kind}"] = rows
        else:
            state[name] = value.T if key == "proj" else value
    return state
