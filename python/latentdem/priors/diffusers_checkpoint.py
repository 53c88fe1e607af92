"""Reading checkpoints of diffusers: folders, ids on the hub, and files in the original layout."""

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
from diffusers.loaders.single_file_utils import fetch_diffusers_config, load_single_file_checkpoint
from huggingface_hub import snapshot_download

from ..checkpoints import load_part, reason_of
from ..errors import UserError

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
UNETS = ("UNet2DConditionModel", "UNet2DModel")
CONFIGURATION = ("*.json", "*.txt")
ORIGINAL_PREFIXES = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint that a prior is made of; a safety checker is never read.

    Every member raises a `UserError` where something is missing, damaged or of a kind that cannot be used.

    Attributes:
        source: a folder with model_index.json, or an id on the Hugging Face hub.
        torch_dtype: of the weights.
        variant: of the weight files, such as "fp16".
        local_files_only: take what the hub's cache on this machine has and download nothing.
    """

    source: str
    torch_dtype: torch.dtype = torch.float32
    variant: str | None = None
    local_files_only: bool = False

    @cached_property
    def index(self) -> dict[str, Any]:
        """model_index.json: library and class of each part, and settings of the pipeline."""
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
        """The autoencoder that `source` is as a whole."""
        name = self._config(diffusers.AutoencoderKL).get("_class_name", "network of no known class")
        return self._network(getattr(diffusers, name, None), AUTOENCODERS, "", name)

    def text_pipeline(self, device: torch.device | str) -> DiffusionPipeline | None:
        """A pipeline of tokenizers and text encoders alone; None where the checkpoint has none."""
        encoders = [name for name in ("text_encoder", "text_encoder_2") if (self.index.get(name) or [None])[0]]
        if not encoders:
            return None
        require_transformers()
        others = ("vae", "unet", "scheduler", "feature_extractor", "tokenizer", "text_encoder")
        parts: dict[str, Any] = dict.fromkeys(others)
        for name in encoders:
            parts[name] = encoder = self._text_encoder(name).to(device)
            tokenizer = name.replace("text_encoder", "tokenizer")
            parts[tokenizer] = self._from_pretrained(tokenizer)
            # Without its files transformers makes an empty one.
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

    def _text_encoder(self, name: str) -> Any:
        encoder, report = self._from_pretrained(name, variant=self.variant, output_loading_info=True)
        if report["missing_keys"]:
            raise UserError(f"The weights in {self.source}/{name} are not those of a {type(encoder).__name__}.")
        return encoder.eval().to(self.torch_dtype)

    def _network(
        self, kind: Any, allowed: tuple[str, ...], subfolder: str, name: str | None = None
    ) -> ModelMixin:
        name = name or str(kind.__name__)
        if name not in allowed:
            raise UserError(f"{self.source} has a {name}; a prior needs one of {', '.join(allowed)}.")
        return load_part(
            kind,
            self.source,
            subfolder,
            self._what_helps,
            torch_dtype=self.torch_dtype,
            variant=self.variant,
            local_files_only=self.local_files_only,
        )

    def _class(self, name: str) -> Any:
        library, kind = self.index.get(name) or ("", "")
        known = library in ("diffusers", "transformers")
        found = getattr(import_module(library), kind, None) if known else None
        if found is None:
            raise UserError(
                f"{self.source} has no {name} that can be used; give a checkpoint of Stable Diffusion 1.x, 2.x "
                "or XL or of unconditional latent diffusion."
            )
        return found

    def _config(self, kind: Any) -> dict[str, Any]:
        try:
            return kind.load_config(self.source, local_files_only=self.local_files_only)
        except Exception as error:  # OSError, ValueError and the hub's own
            raise UserError(self._missing(kind.config_name, error)) from error

    def _from_pretrained(self, name: str, **options: Any) -> Any:
        try:
            return self._class(name).from_pretrained(
                self.source, subfolder=name, local_files_only=self.local_files_only, **options
            )
        except UserError:
            raise
        except Exception as error:  # OSError, ValueError, RuntimeError and the hub's own
            raise UserError(self._missing(name, error)) from error

    def _missing(self, name: str, error: Exception) -> str:
        if Path(self.source).is_dir():
            return f"{name} in {self.source} cannot be read: {reason_of(error)}."
        place = "neither in a folder of that name nor in the hub's cache on this machine"
        return f"{name} of '{self.source}' is {place}{self._what_helps}"

    @property
    def _what_helps(self) -> str:
        if Path(self.source).is_dir():
            return "."
        weights = f"*model{'.' + self.variant if self.variant else ''}.safetensors"
        return f"; download it with: {download_command(self.source, (*CONFIGURATION, weights))}"


def pipeline_of_file(
    path: str | Path,
    config: str | Path | None,
    torch_dtype: torch.dtype,
    vae: ModelMixin | None,
    local_files_only: bool,
) -> DiffusionPipeline:
    """The Stable Diffusion pipeline in a file of the original layout; see `DiffusersPrior.from_single_file`.

    Raises:
        UserError: no such file, no weights of Stable Diffusion in it, or no configuration for them.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}; check the path.")
    require_transformers()
    unreadable = f"{path} cannot be read as a checkpoint of Stable Diffusion in its original layout"
    try:
        state = load_single_file_checkpoint(str(path))
        config = config or fetch_diffusers_config(state)["pretrained_model_name_or_path"]
        held = {part: _elements(state, prefix) for part, prefix in ORIGINAL_PREFIXES.items()}
        del state
    except Exception as error:  # whatever unpickling raises
        raise UserError(f"{unreadable}: {reason_of(error)}.") from error
    folder = _configuration(str(config), local_files_only)
    index = Checkpoint(folder).index
    is_xl = "text_encoder_2" in index
    kind = diffusers.StableDiffusionXLPipeline if is_xl else diffusers.StableDiffusionPipeline
    parts = {} if vae is None else {"vae": vae}
    if "safety_checker" in index:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        pipeline = kind.from_single_file(
            str(path), config=folder, torch_dtype=torch_dtype, local_files_only=True, **parts
        )
    except NotImplementedError as error:  # from accelerate: a parameter that is absent has no memory
        raise UserError(f"{unreadable}: weights of one of its networks are missing.") from error
    except Exception as error:  # OSError, ValueError, RuntimeError, KeyError and diffusers' own
        raise UserError(f"{unreadable} with the configuration of {config}: {reason_of(error)}.") from error
    for part in held.keys() - parts.keys():
        # Without accelerate, diffusers leaves absent parameters as they were initialised, and does not say so.
        if held[part] < sum(parameter.numel() for parameter in getattr(pipeline, part).parameters()):
            raise UserError(f"{unreadable}: weights of its {part} are missing.")
    return pipeline


def _elements(state: dict[str, Any], prefix: str) -> int:
    """How many numbers there are under the names that begin with `prefix`."""
    return sum(value.numel() for key, value in state.items() if key.startswith(prefix))


def require_transformers() -> None:
    """Raises a UserError where the package that reads prompts is missing."""
    if find_spec("transformers") is None:
        raise UserError(
            "Checkpoints with a text encoder need the package transformers; "
            "install it with: pip install 'latentdem[diffusion]'"
        )


def download_command(source: str, patterns: tuple[str, ...]) -> str:
    """The command that downloads those files of `source` that fit one of `patterns`."""
    included = " ".join(f'--include "{pattern}"' for pattern in patterns)
    return f'hf download {source} {included} --exclude "safety_checker/*"'


def _configuration(config: str, local_files_only: bool) -> str:
    """Folder of configuration files, from the hub's cache or the hub where `config` is an id."""
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
