"""Tiny checkpoints of Zero123 in the public layouts; the exact prior and views of its objects."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.geometry.cameras import relative_pose
from latentdem.three_d.pose_search.noise_error import PairError
from latentdem.three_d.pose_search.search import PoseSearch
from latentdem.three_d.synthetic.finite_objects import FiniteObjectsPrior

from ..priors.conftest import PYTORCH, SD_SCHEDULE, _offline, tiny_unet, tiny_vae  # noqa: F401
from ..priors.original_layout import original_networks

EMBEDDING, WIDTH = 12, 16
LAYOUTS = {
    "cc_projection": ("Zero1to3StableDiffusionPipeline", ["pipeline_zero1to3", "CCProjection"], "projection"),
    "clip_camera_projection": ("Zero123Pipeline", ["zero123", "CLIPCameraProjection"], "proj"),
}
CLIP_NAMES = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.patch_embedding": "conv1",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.post_layernorm": "ln_post",
    "vision_model.encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


class Networks:
    """Tiny parts of a checkpoint of Zero123; images of 16 x 16 pixels become latents of 8 x 8."""

    def __init__(self) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        torch.manual_seed(0)
        self.vae = tiny_vae().eval()
        self.unet = tiny_unet(in_channels=8, out_channels=4, cross_attention_dim=WIDTH, sample_size=64).eval()
        config = CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            projection_dim=EMBEDDING,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
        self.image_encoder = CLIPVisionModelWithProjection(config).eval()
        self.projection = nn.Linear(EMBEDDING + 4, WIDTH)
        # With the initial weights, the token has almost no effect.
        self.projection.weight.data *= 20
        self.scheduler = DDIMScheduler(**SD_SCHEDULE)

    def write(self, folder: Path, layout: str) -> Path:
        """Writes diffusers' layout, with the pose's layer in the folder `layout`."""
        pipeline, kind, layer = LAYOUTS[layout]
        parts = {
            "vae": ["diffusers", "AutoencoderKL"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            "scheduler": ["diffusers", "DDIMScheduler"],
        }
        for name in parts:
            getattr(self, name).save_pretrained(folder / name)
        weights = folder / "image_encoder" / "model.safetensors"
        # The files of 2023 contain this buffer, which the class no longer has.
        positions = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
        save_file(load_file(weights) | positions, weights, PYTORCH)
        others = {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": [None, None]}
        index = {"_class_name": pipeline, "_diffusers_version": "0.20.0", **parts, **others, layout: kind}
        (folder / "model_index.json").write_text(json.dumps(index))
        config: dict[str, Any] = {"_class_name": kind[1], "_diffusers_version": "0.20.0"}
        if layout == "clip_camera_projection":
            config |= {"embedding_dim": EMBEDDING, "additional_embeddings": 4}
        (folder / layout).mkdir()
        (folder / layout / "config.json").write_text(json.dumps(config))
        (folder / layout / f"{kind[0]}.py").write_text("raise RuntimeError('the code of a checkpoint was run')")
        state = {f"{layer}.{key}": value for key, value in self.projection.state_dict().items()}
        save_file(state, folder / layout / "diffusion_pytorch_model.safetensors", PYTORCH)
        return folder

    def original_state(self) -> dict[str, Tensor]:
        """The weights as in one file of the original code."""
        state = original_networks(self.unet, self.vae)
        clip = self.image_encoder.state_dict()
        state["cond_stage_model.model.visual.proj"] = clip.pop("visual_projection.weight").T
        state["cond_stage_model.model.logit_scale"] = torch.ones(())
        for key in [key for key in clip if ".q_proj." in key]:
            fused = torch.cat([clip.pop(key.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"])
            clip[key.replace("self_attn.q_proj.", "attn.in_proj_")] = fused
        for key, value in clip.items():
            for ours, original in CLIP_NAMES.items():
                key = key.replace(ours, original)
            state[f"cond_stage_model.model.visual.{key}"] = value
        state |= {f"cc_projection.{key}": value for key, value in self.projection.state_dict().items()}
        return {key: value.contiguous() for key, value in state.items()}


@pytest.fixture(scope="session")
def networks() -> Networks:
    with torch.random.fork_rng():
        return Networks()


@pytest.fixture(scope="session", params=list(LAYOUTS))
def zero123(
    request: pytest.FixtureRequest, networks: Networks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint in each of diffusers' layouts."""
    return networks.write(tmp_path_factory.mktemp("zero123"), request.param)


@pytest.fixture(scope="session")
def zero123_config(zero123: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a checkpoint without weights."""
    folder = tmp_path_factory.mktemp("config") / "config"
    shutil.copytree(zero123, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


ABAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
# (polar, azimuth) in degrees; the first is the reference.
CAMERAS = torch.tensor([(70.0, 20.0), (83.0, 108.0), (62.0, -113.0), (75.0, -40.0)])


class Exact:
    """The exact prior, `count` known views of its second object, and their true poses."""

    def __init__(self, count: int, size: int = 12) -> None:
        generator = torch.Generator().manual_seed(0)
        points = 0.3 * torch.randn(2, 8, 3, generator=generator)
        colours = 2 * torch.rand(2, 8, 3, generator=generator) - 1
        self.cameras = torch.cat([torch.deg2rad(CAMERAS), torch.full((len(CAMERAS), 1), 1.6)], 1)
        self.prior = FiniteObjectsPrior(points, colours, self.cameras, ABAR, image_size=size)
        self.views = self.prior.view(torch.ones(count, dtype=torch.long), self.cameras[:count])
        self.condition = self.prior.condition(self.views)
        self.poses = relative_pose(self.cameras[:count], self.cameras[:1])
        self.error = PairError(self.prior, self.condition, self.prior.encode(self.views))

    def search(self, config: ReconstructionConfig | None = None, seed: int = 0) -> PoseSearch:
        return PoseSearch(self.error, config or ReconstructionConfig(), torch.Generator().manual_seed(seed))

    def truth(self, targets: Tensor) -> Tensor:
        """True views of the object from `targets` (K, 3), relative to view 1."""
        return self.prior.view(torch.ones(len(targets), dtype=torch.long), self.cameras[0] + targets)

    def error_of(self, poses: Tensor) -> float:
        """Largest error of an angle in degrees."""
        return math.degrees(float(relative_pose(poses, self.poses)[..., :2].abs().max()))


@pytest.fixture
def exact() -> type[Exact]:
    return Exact
