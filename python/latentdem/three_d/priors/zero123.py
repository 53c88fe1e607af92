"""Zero123 as a view-conditioned prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel
from torch import Tensor, nn

from ...errors import UserError
from ...priors.latents import Latents
from ...priors.parametrization import Parametrization
from ..geometry.cameras import pose_embedding
from .base import PosedCondition, ViewCondition, check_views, equal_variance
from .zero123_checkpoint import POSE_CHANNELS, Zero123Parts, parts_of_checkpoint, parts_of_file

# Statistics of the pixels that CLIP was trained on, in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Zero123Prior:
    """Zero123: Stable Diffusion conditioned on another view of the object and the relative pose.

    The U-Net gets the latent of the known view beside the noisy one, in the autoencoder's own scale, and
    attends to one token: CLIP's embedding of the known view and `pose_embedding` of the pose, projected by a
    linear layer. Without a known view, latent and token are zero. Source: Liu et al. 2023, *Zero-1-to-3*, and
    its code.

    Networks may be in half precision; the linear layer, through which the gradient in the pose goes, is in
    at least float32, and latents, images and noise are returned in the dtype of the caller. The weights are
    frozen.

    Args:
        vae: autoencoder.
        unet: noise predictor, with twice as many input channels as a latent.
        image_encoder: transformers' `CLIPVisionModelWithProjection`.
        projection: linear layer from embedding and pose to the token.
        scheduler: diffusers scheduler that the U-Net was trained with; see `Parametrization` for what is used
            of it.
        guidance: scale of classifier-free guidance towards the known view, 1 for none; the authors' is 3.
        image_size: size of the images that the U-Net was trained on; some public configurations differ from it.
        name: name of the prior in reports.

    Attributes:
        alphas_cumprod: (1000,) float32 on the CPU.
        latent_shape: (c, h, w).

    Raises:
        UserError: the parts do not match each other, or cannot be used as a prior.
    """

    temperature = 1.0

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        image_encoder: Any,
        projection: nn.Linear,
        scheduler: SchedulerMixin,
        *,
        guidance: float = 3.0,
        image_size: int = 256,
        name: str = "zero123",
    ) -> None:
        self._parametrization = Parametrization.of(scheduler)
        self.alphas_cumprod = self._parametrization.alphas_cumprod
        self.name, self.guidance, self.image_size = name, guidance, image_size
        self.latents = Latents(vae)
        self.unet = unet.eval().requires_grad_(False)
        self.image_encoder = image_encoder.eval().requires_grad_(False)
        self.projection = projection.eval().requires_grad_(False)
        self.projection.to(torch.promote_types(unet.dtype, torch.float32))
        _check_parts(vae, unet, image_encoder, projection)
        multiple = self.latents.downsampling * 2 ** (len(unet.config["block_out_channels"]) - 1)
        if image_size % multiple:
            raise UserError(f"The image size {image_size} must be a multiple of {multiple}.")
        size = image_size // self.latents.downsampling
        self.latent_shape = (vae.config["latent_channels"], size, size)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        variant: str | None = None,
        device: torch.device | str = "cpu",
        guidance: float = 3.0,
        image_size: int = 256,
        local_files_only: bool = False,
    ) -> Zero123Prior:
        """Loads a checkpoint in diffusers' layout, with the pose's layer in either of its public places.

        These are `cc_projection` (as in kxic/zero123-165000) and `clip_camera_projection` (as in
        ashawkey/zero123-xl-diffusers and bennyguo/zero123-xl-diffusers). Code in a checkpoint is not
        executed. The autoencoder is accelerated (`latentdem_ext.accelerate_vae`).

        Args:
            id_or_path: id on the Hugging Face hub, or a folder with model_index.json.
            torch_dtype: dtype of the weights.
            variant: variant of the weight files, such as "fp16".
            device: device of the networks.
            guidance, image_size: see the class.
            local_files_only: use only the hub's cache on this machine, and download nothing.

        Raises:
            UserError: weights are missing, damaged or not those of Zero123, or the package transformers is
                missing.
        """
        parts = parts_of_checkpoint(str(id_or_path), torch_dtype, variant, local_files_only)
        return cls._of(parts, device, guidance, image_size, str(id_or_path))

    @classmethod
    def from_single_file(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        torch_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        guidance: float = 3.0,
        image_size: int = 256,
        local_files_only: bool = False,
    ) -> Zero123Prior:
        """Loads a checkpoint of one file in the layout of the original code (.ckpt or .safetensors).

        Such a file contains weights but no configuration. That is taken from `config`: a folder in diffusers'
        layout (with or without weights) or its id on the hub; None stands for ashawkey/zero123-xl-diffusers,
        whose networks have the shapes of all of the authors' files. For the other arguments see
        `from_pretrained`.

        Raises:
            UserError: see `from_pretrained`, or the configuration is not on this machine and cannot be
                downloaded.
        """
        parts = parts_of_file(path, config, torch_dtype, local_files_only)
        return cls._of(parts, device, guidance, image_size, str(path))

    @classmethod
    def _of(
        cls, parts: Zero123Parts, device: torch.device | str, guidance: float, image_size: int, name: str
    ) -> Zero123Prior:
        networks = (parts.vae, parts.unet, parts.image_encoder, parts.projection)
        vae, unet, encoder, projection = (network.to(device) for network in networks)
        options: dict[str, Any] = {"guidance": guidance, "image_size": image_size, "name": name}
        prior = cls(vae, unet, encoder, projection, parts.scheduler, **options)
        prior.latents.accelerate()
        return prior

    def encode(self, x: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) of `x` (B, 3, S, S) in [-1, 1], the means of their distributions.

        Raises:
            UserError: the images have another size.
        """
        check_views(x, self.image_size)
        return self.latents.scaled(self.latents.raw(x))

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, S, S) of scaled latents `z` (B, c, h, w), not clamped."""
        return self.latents.decode(z)

    def framing(self, x: Tensor) -> None:
        """None: it estimates no framing."""

    def condition(self, x: Tensor) -> ViewCondition:
        """Latents, unscaled, and CLIP's embeddings of the known views `x` (N, 3, S, S) in [-1, 1].

        Raises:
            UserError: the images have another size.
        """
        check_views(x, self.image_size)
        return ViewCondition((self.latents.raw(x), self._embedding(x)))

    def _embedding(self, x: Tensor) -> Tensor:
        """CLIP's embeddings (N, D) of `x` (N, 3, S, S) in [-1, 1], preprocessed as in Zero123's training."""
        size, exact = self.image_encoder.config.image_size, torch.promote_types(x.dtype, torch.float32)
        pixels = F.interpolate(x.to(exact), (size, size), mode="bicubic", align_corners=True)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        pixels = ((pixels + 1) / 2 - mean) / std
        return self.image_encoder(pixels.to(self.image_encoder.dtype)).image_embeds.to(x.dtype)

    def agree(self, condition: ViewCondition, poses: Tensor) -> ViewCondition:
        """`condition` unchanged."""
        return condition

    def bundle(self, condition: ViewCondition, cameras: Tensor, radius: bool) -> Tensor:
        """`cameras` unchanged: it represents no shape."""
        return cameras

    def filled(self, condition: ViewCondition, poses: Tensor, points: Tensor) -> None:
        """None: it predicts no occupancy."""

    def posed(self, condition: ViewCondition, pose: Tensor, together: int = 1) -> PosedCondition:
        """Latents of the known views and tokens (B, 1, D) of views and poses, with equal variances."""
        latent, embedding = condition.parts
        embedded = torch.cat([embedding.to(pose.dtype), pose_embedding(pose)], dim=-1)
        token = self.projection(embedded.to(self.projection.weight.dtype))[:, None]
        return PosedCondition((latent, token), equal_variance(pose))

    def score(self, posed: PosedCondition, z: Tensor) -> None:
        """None: there is no network that scores poses."""

    def predict_noise(self, z_t: Tensor, t: int, posed: PosedCondition) -> Tensor:
        """The predicted noise (B, c, h, w), guided; see `ViewPrior.predict_noise`."""
        latent, token = posed.parts
        x = torch.cat([z_t, latent.to(z_t.dtype)], dim=1)
        if self.guidance != 1:
            x = torch.cat([torch.cat([z_t, torch.zeros_like(latent, dtype=z_t.dtype)], dim=1), x])
            token = torch.cat([torch.zeros_like(token), token])
        dtype = self.unet.dtype
        output = self.unet(x.to(dtype), t, encoder_hidden_states=token.to(dtype)).sample
        return self._parametrization.guided_noise(output, z_t, t, self.guidance)


def _check_parts(vae: Any, unet: Any, image_encoder: Any, projection: nn.Linear) -> None:
    channels, takes = vae.config["latent_channels"], unet.config["in_channels"]
    if takes != 2 * channels:
        raise UserError(
            f"The U-Net takes {takes} channels and must take {2 * channels}, those of a noisy latent and of "
            "that of the known view; give a checkpoint of Zero123."
        )
    shape = projection.in_features, projection.out_features
    wanted = image_encoder.config.projection_dim + POSE_CHANNELS, unet.config["cross_attention_dim"]
    if shape != wanted:
        raise UserError(
            f"The projection of the pose goes from {shape[0]} to {shape[1]} channels and must go from "
            f"{wanted[0]} to {wanted[1]}; give the one the U-Net was trained with."
        )
