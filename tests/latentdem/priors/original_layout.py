"""Weights of diffusers' Stable Diffusion under the names of the original code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def renamed(key: str, names: dict[str, str]) -> str:
    for ours, original in names.items():
        key = re.sub(rf"(^|\.){re.escape(ours)}\.", rf"\g<1>{original}.", key)
    return key


def unet_key(key: str, layers: int, attends_up: tuple[bool, ...]) -> str:
    """Blocks are numbered through in the original: the way down from 1, after each level its halving."""
    if (end := re.match(r"(time_embedding\.linear_\d|conv_\w+)\.", key)) and end[1] in ENDS:
        return ENDS[end[1]] + key[len(end[1]) :]
    way, rest = key.split(".", 1)
    if way == "mid_block":
        kind, number, rest = rest.split(".", 2)
        place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(number)}"
    else:
        level, kind, number, rest = rest.split(".", 3)
        down = way == "down_blocks"
        block = int(level) * (layers + (1 if down else 0)) + int(number) + (1 if down else 0)
        part = 1 if kind == "attentions" else 0
        if kind == "downsamplers":
            block, rest = block + layers, rest.replace("conv", "op")
        if kind == "upsamplers":
            block, part = block + layers - 1, 1 + attends_up[int(level)]
        place = f"{'input_blocks' if down else 'output_blocks'}.{block}.{part}"
    return f"{place}.{renamed(rest, RESNET) if kind == 'resnets' else rest}"


def vae_key(key: str, levels: int) -> str:
    """The original numbers the decoder's levels from the finest."""
    key = re.sub(
        r"up_blocks\.(\d)\.(\w+)\.",
        lambda m: f"up.{levels - 1 - int(m[1])}.{m[2]}.",
        key.replace("down_blocks.", "down."),
    )
    key = re.sub(r"resnets\.(\d)", r"block.\1", key)
    key = re.sub(r"(down|up)samplers\.0", r"\1sample", key)
    key = re.sub(r"mid_block\.block\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    return renamed(key.replace("conv_norm_out", "norm_out"), ATTENTION if "attn_1" in key else {})


def original_networks(unet: Any, vae: Any) -> dict[str, Tensor]:
    """The states of a U-Net and an autoencoder of Stable Diffusion 1.x as the original code names them."""
    attends = tuple("CrossAttn" in kind for kind in unet.config.up_block_types)
    layers, levels = unet.config.layers_per_block, len(vae.config.block_out_channels)
    state = {}
    for key, value in unet.state_dict().items():
        state[f"model.diffusion_model.{unet_key(key, layers + ('up_' in key), attends)}"] = value
    for key, value in vae.state_dict().items():
        name = vae_key(key, levels)
        is_matrix = value.ndim == 2 and "attn_1" in name  # a convolution of one pixel there
        state[f"first_stage_model.{name}"] = value[..., None, None] if is_matrix else value
    return state


def original_state(pipeline: Any) -> dict[str, Tensor]:
    """The state of a Stable Diffusion 1.x pipeline as one file of the original code holds it."""
    state = original_networks(pipeline.unet, pipeline.vae)
    for key, value in pipeline.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    return {key: value.contiguous() for key, value in state.items()}


class ModelCheckpoint:
    """Stands for a callback of PyTorch Lightning, whose class such files name."""


ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"


def save_as_lightning(state: dict[str, Tensor], path: Path) -> None:
    """Writes a .ckpt as training with PyTorch Lightning does, which is not there when the file is read."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", ModelCheckpoint.__module__]
    modules = {name: ModuleType(name) for name in names}
    modules[ModelCheckpoint.__module__].ModelCheckpoint = ModelCheckpoint  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patched:
        for name, module in modules.items():
            patched.setitem(sys.modules, name, module)
        callbacks = {ModelCheckpoint: {"best_model_score": None}}
        torch.save({"state_dict": state, "global_step": 470000, "callbacks": callbacks}, path)
