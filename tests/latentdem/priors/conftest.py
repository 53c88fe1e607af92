"""Tiny checkpoints with random weights in the layouts of the real ones."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNet2DModel, VQModel
from safetensors.torch import load_file, save_file

from latentdem import DiffusersPrior

Build = Callable[..., Path]
Load = Callable[..., DiffusersPrior]
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD_SCHEDULE = {**SD_BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches the hub or a cache of it."""
    for module in ("huggingface_hub.constants", "diffusers.utils.constants"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # transformers up to 4 keeps a copy.
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hub"), raising=False)


def in_cache(folder: Path, name: str, hub: Path) -> None:
    """Puts a checkpoint where the hub's client keeps its downloads."""
    cached, commit = hub / f"models--{name.replace('/', '--')}", "0" * 40
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(commit)


@pytest.fixture(scope="session")
def load() -> Load:
    """`DiffusersPrior.from_pretrained`, once for the same arguments."""
    return cache(DiffusersPrior.from_pretrained)


def tiny_vae(latent_channels: int = 4, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=latent_channels,
        **config,
    )


def tiny_unet(**config: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "norm_num_groups": 4,
            "attention_head_dim": 2,
            "cross_attention_dim": 16,
            "sample_size": 16,
            **config,
        }
    )


def write_tokenizer(folder: Path) -> int:
    """The files of a CLIP tokenizer that knows single letters; returns the size of its vocabulary."""
    folder.mkdir(parents=True)
    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    names = {"bos_token": "<|startoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config = {**names, "eos_token": "<|endoftext|>", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(tokens)


def text_parts(folder: Path, projection: bool = False) -> tuple[Any, Any]:
    """A CLIP tokenizer and a text encoder of 16 channels for it."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    size = write_tokenizer(folder)
    config = CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=16,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return CLIPTokenizer.from_pretrained(folder), kind(config).eval()


PYTORCH = {"format": "pt"}  # what transformers up to 4 looks for in a file


def as_written_in_2022(folder: Path) -> None:
    """Gives parameters the names they have in the real files, which are older than those of today's classes."""
    for file in folder.glob("text_encoder/*.safetensors"):
        state = {f"text_model.{key.removeprefix('text_model.')}": v for key, v in load_file(file).items()}
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        save_file(state, file, PYTORCH)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for file in folder.glob("vae/*.safetensors"):
        state = load_file(file)
        for new, before in old.items():
            state = {
                key.replace(f"attentions.0.{new}.", f"attentions.0.{before}."): v for key, v in state.items()
            }
        assert any(".query." in key for key in state)
        save_file(state, file, PYTORCH)


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Writes a checkpoint in the layout of Stable Diffusion 1.5 (defaults) or 2.x."""

    def build(
        prediction_type: str = "epsilon",
        unet: dict[str, Any] | None = None,
        scheduler: str = "PNDMScheduler",
        **save: Any,
    ) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("sd")
        tokenizer, encoder = text_parts(folder / "tokenizer")
        kind = getattr(diffusers, scheduler)
        settings = {key: v for key, v in SD_SCHEDULE.items() if key != "clip_sample" or scheduler[0] == "D"}
        diffusers.StableDiffusionPipeline(
            vae=tiny_vae(),
            unet=tiny_unet(**(unet or {})),
            text_encoder=encoder,
            tokenizer=tokenizer,
            scheduler=kind(**settings, prediction_type=prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder, **save)
        as_written_in_2022(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def sd15(stable_diffusion: Build) -> Path:
    return stable_diffusion()


@pytest.fixture(scope="session")
def sd21(stable_diffusion: Build) -> Path:
    unet = {"use_linear_projection": True, "attention_head_dim": [2, 4]}
    return stable_diffusion("v_prediction", unet, "DDIMScheduler")


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of Stable Diffusion XL."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sdxl")
    tokenizer, encoder = text_parts(folder / "tokenizer")
    tokenizer_2, encoder_2 = text_parts(folder / "tokenizer_2", projection=True)
    unet = tiny_unet(
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 12,
    )
    diffusers.StableDiffusionXLPipeline(
        vae=tiny_vae(force_upcast=True, scaling_factor=0.13025),
        unet=unet,
        text_encoder=encoder,
        text_encoder_2=encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        scheduler=diffusers.EulerDiscreteScheduler(**SD_BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ldm_vq4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of an unconditional latent diffusion model with a VQ autoencoder, factor 4."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ldm")
    vqvae = VQModel(
        block_out_channels=(4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        latent_channels=3,
        num_vq_embeddings=32,
        scaling_factor=0.5,
    )
    vqvae.quantize.embedding.weight.data.normal_()  # as they are initialised, all decode to nearly the same
    unet = UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        sample_size=8,
    )
    scheduler = diffusers.DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    diffusers.LDMPipeline(vqvae, unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AutoencoderTiny alone, downsampling 2 like the autoencoders above it."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("taesd")
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(folder)
    return folder
