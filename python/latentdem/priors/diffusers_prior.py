"""Latent diffusion checkpoints of diffusers as priors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ModelMixin,
    SchedulerMixin,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..context import own_context
from ..errors import UserError
from .conditions import Condition, encode_prompts
from .diffusers_checkpoint import DiffusersCheckpoint
from .latents import Latents
from .padding import pad_to_multiple, padded_size
from .parametrization import Parametrization, timestep_on
from .single_file import pipeline_of_file

HALF = (torch.float16, torch.bfloat16)
AUTOENCODERS = (AutoencoderKL, AutoencoderTiny, VQModel)
UNETS = (UNet2DConditionModel, UNet2DModel)


class DiffusersPrior:
    """A latent diffusion model of diffusers: Stable Diffusion 1.x, 2.x, XL or an unconditional one.

    Images go in and out in [-1, 1], of any size: the right and lower edge are replicated up to the multiple
    that autoencoder and U-Net need (64 pixels for Stable Diffusion 1.x), and cut off again. Networks may be in
    half precision; latents, images and noise come back in the dtype of the caller. All methods are
    differentiable in their argument; the weights are frozen, also in the pipeline or module they come from, and
    on CUDA those of the U-Net are laid out channels last.

    Args:
        vae: autoencoder. A `VQModel` encodes without quantising and quantises when it decodes, as in diffusers.
        unet: noise predictor on its latents, of epsilon, v or sample prediction.
        scheduler: diffusers scheduler the U-Net was trained with; see `Parametrization` for the settings that
            matter.
        condition: embeddings of the prompt, for a `UNet2DConditionModel`.
        negative: embeddings of the negative prompt, for guidance.
        guidance: scale g of classifier-free guidance, noise = n + g (p - n) with the predictions n under
            `negative` and p under `condition` (Ho and Salimans 2022). For 1 or equal embeddings n is not
            computed.
        name: name of the prior in reports.

    Attributes:
        alphas_cumprod: (1000,) float32 on the CPU.
        multiple: number of pixels, to multiples of which images are padded.

    Raises:
        UserError: the parts do not fit each other, or are of an unsupported kind.
    """

    capturable = True

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny | VQModel,
        unet: UNet2DConditionModel | UNet2DModel,
        scheduler: SchedulerMixin,
        condition: Condition | None = None,
        *,
        negative: Condition | None = None,
        guidance: float = 1.0,
        name: str = "diffusers",
    ) -> None:
        _check_parts(vae, unet, condition)
        self.parametrization = Parametrization.of(scheduler)
        self.alphas_cumprod = self.parametrization.alphas_cumprod
        self.name, self.guidance = name, guidance
        self.vae, self.unet = vae, unet.eval().requires_grad_(False)
        if unet.device.type == "cuda":  # where half precision is fastest in this layout
            convert_conv2d_weight_memory_format(unet, torch.channels_last)
        self._is_xl = unet.config.get("addition_embed_type") == "text_time"
        if guidance != 1 and negative is None:
            raise UserError("Guidance other than 1 needs a negative prompt to lead away from; give one.")
        self._conditions = [] if condition is None else [condition]
        if guidance != 1 and condition and negative and not negative.same(condition):
            self._conditions = [negative, condition]
        # In half precision the nearest codebook entry cannot be searched for, and the decoder of XL overflows.
        overflows = self._is_xl and vae.dtype == torch.float16 and vae.config.get("force_upcast")
        if overflows or (isinstance(vae, VQModel) and vae.dtype in HALF):
            self.vae.to(torch.float32)
        self.latents = Latents(vae)
        self.multiple = self.latents.downsampling * 2 ** (len(unet.config["block_out_channels"]) - 1)

    @classmethod
    @own_context()
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        variant: str | None = None,
        device: torch.device | str = "cpu",
        prompt: str = "",
        negative_prompt: str | None = None,
        guidance: float = 1.0,
        vae: str | Path | ModelMixin | None = None,
        local_files_only: bool = False,
    ) -> DiffusersPrior:
        """Loads a checkpoint in diffusers' layout; the text encoder runs once and is released.

        The autoencoder is accelerated (`latentdem_ext.accelerate_vae`).

        Args:
            id_or_path: id on the Hugging Face hub, or a folder with model_index.json.
            torch_dtype: data type of the weights.
            variant: variant of the weight files, such as "fp16".
            device: where the networks run.
            prompt, negative_prompt, guidance: see `encode_prompts`; the defaults suit most runs.
            vae: another autoencoder for the same latents: id or folder of an `AutoencoderKL` or
                `AutoencoderTiny` (TAESD), or the network itself.
            local_files_only: use only the cache of the hub on this machine and download nothing.

        Raises:
            UserError: weights are missing, damaged or of a kind that cannot be a prior, or the package
                transformers is missing and the checkpoint has a text encoder.
        """
        checkpoint = DiffusersCheckpoint(str(id_or_path), torch_dtype, variant, local_files_only)
        scheduler = checkpoint.scheduler()
        Parametrization.of(scheduler)  # raises before gigabytes are read
        text = checkpoint.text_pipeline(device)
        condition, negative = encode_prompts(text, prompt, negative_prompt, guidance)
        del text
        autoencoder = _lone_autoencoder(vae, torch_dtype, local_files_only) or checkpoint.autoencoder()
        prior = cls(
            autoencoder.to(device),
            checkpoint.unet().to(device),
            scheduler,
            condition,
            negative=negative,
            guidance=guidance,
            name=str(id_or_path),
        )
        prior.latents.accelerate()
        return prior

    @classmethod
    @own_context()
    def from_single_file(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        torch_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        prompt: str = "",
        negative_prompt: str | None = None,
        guidance: float = 1.0,
        vae: str | Path | ModelMixin | None = None,
        local_files_only: bool = False,
    ) -> DiffusersPrior:
        """Loads a Stable Diffusion checkpoint of one file in its original layout (.ckpt or .safetensors).

        Such a file holds weights but no configuration, which comes from `config`: a folder in diffusers' layout
        (weights need not be in it) or the id of one on the hub; None takes the id that diffusers infers from
        the weights, of Stable Diffusion 1.5, 2.1 or XL. The other arguments are those of `from_pretrained`.

        Raises:
            UserError: as for `from_pretrained`, or the configuration is not on this machine and cannot be
                downloaded.
        """
        vae = _lone_autoencoder(vae, torch_dtype, local_files_only)
        pipeline = pipeline_of_file(path, config, torch_dtype, vae, local_files_only)
        prior = cls.from_pipeline(pipeline.to(device), prompt, negative_prompt, guidance)
        prior.name = str(path)
        prior.latents.accelerate()
        return prior

    @classmethod
    def from_pipeline(
        cls, pipeline: Any, prompt: str = "", negative_prompt: str | None = None, guidance: float = 1.0
    ) -> DiffusersPrior:
        """Shares the networks of a diffusers pipeline, on their device and in their dtype; arguments as above.

        Raises:
            UserError: the pipeline has no autoencoder or U-Net, or one of a kind that cannot be a prior.
        """
        vae = getattr(pipeline, "vae", None) or getattr(pipeline, "vqvae", None)
        unet = getattr(pipeline, "unet", None)
        if vae is None or unet is None:
            raise UserError(f"A {type(pipeline).__name__} has no autoencoder and U-Net to make a prior of.")
        condition, negative = encode_prompts(pipeline, prompt, negative_prompt, guidance)
        name = getattr(pipeline, "name_or_path", None) or type(pipeline).__name__
        return cls(vae, unet, pipeline.scheduler, condition, negative=negative, guidance=guidance, name=name)

    @property
    def networks(self) -> list[nn.Module]:
        """Those that the methods call."""
        return [self.unet, self.vae.encoder, self.vae.decoder]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of this size, padding included."""
        rows, columns = padded_size(height, width, self.multiple)
        factor = self.latents.downsampling
        return self.unet.config["in_channels"], rows // factor, columns // factor

    def encode(self, x: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) of `x` (B, 3, H, W) in [-1, 1]; the mean of a distribution."""
        return self.latents.scaled(self.latents.raw(pad_to_multiple(x, self.multiple)))

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Images (B, 3, height, width) of scaled latents `z` (B, c, h, w), not clamped."""
        return self.latents.decode(z)[..., :height, :width]

    def predict_noise(self, z_t: Tensor, t: int | Tensor) -> Tensor:
        """Noise (B, c, h, w) in `z_t` (B, c, h, w), whatever quantity the U-Net predicts.

        `t` is the timestep, a number or a tensor ().
        """
        parts = max(1, len(self._conditions))
        z = torch.cat([z_t] * parts).to(self.unet.dtype)
        output = self.unet(z, timestep_on(z.device, t), **self._inputs(z)).sample
        return self.parametrization.guided_noise(output, z_t, t, self.guidance if parts == 2 else 1.0)

    def _inputs(self, z: Tensor) -> dict[str, Any]:
        """Further inputs of the U-Net, for latents (N, c, h, w) of all conditions together."""
        if not self._conditions:
            return {}
        count = len(z) // len(self._conditions)
        embeddings = torch.cat([c.embeddings.expand(count, -1, -1) for c in self._conditions]).to(z)
        inputs: dict[str, Any] = {"encoder_hidden_states": embeddings}
        if self._is_xl:
            pooled = [c.pooled.expand(count, -1) for c in self._conditions if c.pooled is not None]
            height, width = (n * self.latents.downsampling for n in z.shape[-2:])
            # Original size, corner of the crop and target size for an image neither scaled nor cropped.
            sizes = (height, width, 0, 0, height, width)
            times = torch.cat([z.new_full((1,), size) for size in sizes]).expand(len(z), -1)
            inputs["added_cond_kwargs"] = {"text_embeds": torch.cat(pooled).to(z), "time_ids": times}
        return inputs


def _lone_autoencoder(
    vae: str | Path | ModelMixin | None, torch_dtype: torch.dtype, local_files_only: bool
) -> ModelMixin | None:
    if isinstance(vae, (str, Path)):
        return DiffusersCheckpoint(str(vae), torch_dtype, None, local_files_only).lone_autoencoder()
    return vae


def _check_parts(vae: ModelMixin, unet: ModelMixin, condition: Condition | None) -> None:
    for part, kinds in ((vae, AUTOENCODERS), (unet, UNETS)):
        if not isinstance(part, kinds):
            names = ", ".join(kind.__name__ for kind in kinds)
            raise UserError(f"A {type(part).__name__} cannot be part of a prior; give one of {names}.")
    given, taken = vae.config["latent_channels"], unet.config["in_channels"]
    if given != taken:
        raise UserError(
            f"The autoencoder makes latents of {given} channels and the U-Net takes {taken}; give the one the "
            "U-Net was trained with (models for inpainting, depth and upscaling take more and are no priors)."
        )
    conditional = isinstance(unet, UNet2DConditionModel)
    if conditional != (condition is not None):
        raise UserError(
            f"A {type(unet).__name__} {'needs' if conditional else 'takes no'} embeddings of a prompt."
        )
    if condition is None:
        return
    width = unet.config["cross_attention_dim"]
    if condition.embeddings.shape[-1] != width:
        raise UserError(
            f"The embeddings have {condition.embeddings.shape[-1]} channels and the U-Net takes {width}; give "
            "those of its own text encoder."
        )
    added = unet.config.get("addition_embed_type")
    others = (unet.config.get(name) for name in ("class_embed_type", "encoder_hid_dim_type"))
    if added not in (None, "text_time") or any(others):
        raise UserError("This U-Net needs more than a prompt (an image, a class or a size) and is no prior.")
    if added is None:
        return
    pooled = 0 if condition.pooled is None else condition.pooled.shape[-1]
    times = 6 * unet.config["addition_time_embed_dim"]
    if unet.config["projection_class_embeddings_input_dim"] != times + pooled:
        raise UserError(
            "This U-Net takes other added conditions than the base model of Stable Diffusion XL; give that one."
        )
