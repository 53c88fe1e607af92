"""Checkpoints of diffusers: folders and ids on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, ModelMixin

from ..errors import UserError
from .loading import reason_of

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
UNETS = ("UNet2DConditionModel", "UNet2DModel")
CONFIGURATION = ("*.json", "*.txt")


@dataclass(frozen=True)
class DiffusersCheckpoint:
    """The parts of a checkpoint that a prior is made of; a safety checker is never read.

    Every member raises a `UserError` where something is missing, damaged or of a kind that cannot be used.

    Attributes:
        source: a folder with model_index.json, or an id on the Hugging Face hub.
        torch_dtype: data type of the weights.
        variant: variant of the weight files, such as "fp16".
        local_files_only: use only the cache of the hub on this machine and download nothing.
        expected: models whose checkpoints can be used, for messages.
    """

    source: str
    torch_dtype: torch.dtype = torch.float32
    variant: str | None = None
    local_files_only: bool = False
    expected: str = "Stable Diffusion 1.x, 2.x or XL or of unconditional latent diffusion"

    @cached_property
    def index(self) -> dict[str, Any]:
        """Content of model_index.json: library and class of each part, and settings of the pipeline."""
        return self._config(DiffusionPipeline)

    def scheduler(self) -> Any:
        """The diffusers scheduler."""
        return self._from_pretrained("scheduler")

    def unet(self) -> ModelMixin:
        """The noise predictor."""
        return self._network(self._class("unet"), UNETS, "unet")

    def autoencoder(self) -> ModelMixin:
        """The autoencoder among the parts."""
        name = "vqvae" if "vqvae" in self.index else "vae"
        return self._network(self._class(name), AUTOENCODERS, name)

    def lone_autoencoder(self) -> ModelMixin:
        """The autoencoder of a `source` that holds nothing else."""
        name = self._config(diffusers.AutoencoderKL).get("_class_name", "network of no known class")
        return self._network(getattr(diffusers, name, None), AUTOENCODERS, "", name)

    def part(self, kind: Any, name: str, **options: Any) -> Any:
        """The network in the subfolder `name`, "" for none, as a `kind`; options are those of diffusers.

        Weights that the network does not use are ignored.
        """
        place = f"{self.source}/{name}".rstrip("/")
        try:
            network, report = kind.from_pretrained(
                self.source,
                subfolder=name,
                torch_dtype=self.torch_dtype,
                variant=self.variant,
                local_files_only=self.local_files_only,
                low_cpu_mem_usage=False,
                output_loading_info=True,
                **options,
            )
        except Exception as error:  # OSError, ValueError, RuntimeError and the hub's and safetensors' own
            raise UserError(
                f"The weights in {place} cannot be loaded: {reason_of(error)}{self._remedy}"
            ) from error
        if report["missing_keys"]:  # of which diffusers only warns
            raise UserError(f"The weights in {place} are not those of a {kind.__name__}{self._remedy}")
        return network.eval().requires_grad_(False)

    def encoder(self, name: str) -> Any:
        """A text or image encoder of transformers."""
        require_transformers()
        encoder, report = self._from_pretrained(name, variant=self.variant, output_loading_info=True)
        if report["missing_keys"]:
            raise UserError(f"The weights in {self.source}/{name} are not those of a {type(encoder).__name__}.")
        return encoder.eval().to(self.torch_dtype)

    def text_pipeline(self, device: torch.device | str) -> DiffusionPipeline | None:
        """A pipeline with only tokenizers and text encoders; None where the checkpoint has none."""
        encoders = [name for name in ("text_encoder", "text_encoder_2") if (self.index.get(name) or [None])[0]]
        if not encoders:
            return None
        others = ("vae", "unet", "scheduler", "feature_extractor", "tokenizer", "text_encoder")
        parts: dict[str, Any] = dict.fromkeys(others)
        for name in encoders:
            parts[name] = encoder = self.encoder(name).to(device)
            tokenizer = name.replace("text_encoder", "tokenizer")
            parts[tokenizer] = self._from_pretrained(tokenizer)
            # Without its files transformers makes an empty tokenizer.
            if len(parts[tokenizer]) < encoder.config.vocab_size:
                raise UserError(self._missing(tokenizer, OSError("there are no files of a vocabulary")))
        if "text_encoder_2" not in encoders:
            return diffusers.StableDiffusionPipeline(
                **parts, safety_checker=None, requires_safety_checker=False
            )
        zeros = self.index.get("force_zeros_for_empty_prompt", True)
        return diffusers.StableDiffusionXLPipeline(
            **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
        )

    def _network(
        self, kind: Any, allowed: tuple[str, ...], subfolder: str, name: str | None = None
    ) -> ModelMixin:
        name = name or str(kind.__name__)
        if name not in allowed:
            raise UserError(f"{self.source} has a {name}; a prior needs one of {', '.join(allowed)}.")
        return self.part(kind, subfolder)

    def _class(self, name: str) -> Any:
        library, kind = self.index.get(name) or ("", "")
        known = library in ("diffusers", "transformers")
        part_class = getattr(import_module(library), kind, None) if known else None
        if part_class is None:
            raise UserError(
                f"{self.source} has no {name} that can be used; give a checkpoint of {self.expected}."
            )
        return part_class

    def _config(self, kind: Any) -> dict[str, Any]:
        try:
            return kind.load_config(self.source, local_files_only=self.local_files_only)
        except Exception as error:  # OSError, ValueError and errors of the hub
            raise UserError(self._missing(kind.config_name, error)) from error

    def _from_pretrained(self, name: str, **options: Any) -> Any:
        try:
            return self._class(name).from_pretrained(
                self.source, subfolder=name, local_files_only=self.local_files_only, **options
            )
        except UserError:
            raise
        except Exception as error:  # OSError, ValueError, RuntimeError and errors of the hub
            raise UserError(self._missing(name, error)) from error

    def _missing(self, name: str, error: Exception) -> str:
        if Path(self.source).is_dir():
            return f"{name} in {self.source} cannot be read: {reason_of(error)}."
        place = "neither in a folder of that name nor in the hub's cache on this machine"
        return f"{name} of '{self.source}' is {place}{self._remedy}"

    @property
    def _remedy(self) -> str:
        if Path(self.source).is_dir():
            return "."
        weights = f"*model{'.' + self.variant if self.variant else ''}.safetensors"
        return f"; download it with: {download_command(self.source, (*CONFIGURATION, weights))}"


def require_transformers() -> None:
    """Raises a UserError where transformers, the package of text and image encoders, is missing."""
    if find_spec("transformers") is None:
        raise UserError(
            "Checkpoints with a text or image encoder need the package transformers; "
            "install it with: pip install transformers accelerate"
        )


def download_command(source: str, patterns: tuple[str, ...]) -> str:
    """The command that downloads the files of `source` that match one of `patterns`."""
    included = " ".join(f'--include "{pattern}"' for pattern in patterns)
    return f'hf download {source} {included} --exclude "safety_checker/*"'
