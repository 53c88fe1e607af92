"""LatentDEM as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from .context import own_context
from .errors import UserError
from .io.channels import to_rgb
from .io.inputs import ImageLike, to_tensor
from .io.kernels import KernelLike, as_kernel
from .priors.diffusers_denoiser import KernelDenoiserModel
from .priors.diffusers_prior import DiffusersPrior
from .priors.kernel_denoiser import KernelDenoiser, load_kernel_denoiser, prepare_for_inference
from .restoration.image import ImageRestoration
from .restoration.settings import Settings
from .solver.state import State

OUTPUT_TYPES = ("pil", "pt", "np", "latent")

Callback = Callable[[DiffusionPipeline, int, int, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class LatentDEMPipelineOutput(BaseOutput):
    """Output of `LatentDEMPipeline`.

    Attributes:
        images: the restored images in the requested `output_type`: a list of PIL images ("pil"), (B, C, H, W)
            in [0, 1] on the CPU ("pt"), (B, H, W, C) in [0, 1] ("np") or their scaled latents (B, c, h, w)
            ("latent").
        kernels: (B, 1, K, K) float32 on the CPU, non-negative, sum 1, origin at K // 2.
    """

    images: list[Image.Image] | np.ndarray | Tensor
    kernels: Tensor


class LatentDEMPipeline(DiffusionPipeline):
    """Restores blurred images, and their kernels, with a latent diffusion model of diffusers as the prior.

    It takes the checkpoints that `DiffusersPrior` takes, through `from_pretrained` and `from_pipe`, and returns
    the same images as `latentdem.deblur` with that prior. Safety checkers are not loaded.

    Args:
        unet: noise predictor.
        scheduler: the scheduler it was trained with; its sampling settings are ignored.
        vae, vqvae: autoencoder, under one of the two names.
        text_encoder, tokenizer: for a conditional `unet`; Stable Diffusion XL also has the ones ending in `_2`.
        kernel_denoiser: plug-and-play denoiser of the M-step; None for the shipped one.
        force_zeros_for_empty_prompt: for Stable Diffusion XL, whether the embeddings of a missing negative
            prompt are zeros.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae->vqvae"
    _optional_components: ClassVar[list[str]] = [
        "vae",
        "vqvae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "kernel_denoiser",
    ]
    # It runs in every M-step, takes half a megabyte, and is not called through its `forward`.
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["kernel_denoiser"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "kernel", "pred_original_sample"]

    def __init__(
        self,
        unet: UNet2DConditionModel | UNet2DModel,
        scheduler: object,
        vae: AutoencoderKL | AutoencoderTiny | None = None,
        vqvae: VQModel | None = None,
        text_encoder: object | None = None,
        text_encoder_2: object | None = None,
        tokenizer: object | None = None,
        tokenizer_2: object | None = None,
        kernel_denoiser: KernelDenoiser | KernelDenoiserModel | None = None,
        force_zeros_for_empty_prompt: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(kernel_denoiser, KernelDenoiserModel):
            kernel_denoiser = KernelDenoiserModel.sharing(kernel_denoiser or load_kernel_denoiser())
        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            vae=vae,
            vqvae=vqvae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            kernel_denoiser=kernel_denoiser,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)

    def encode_prompt(self, prompt: str, **options: Any) -> Any:
        """Embeddings of a prompt, by the method of the same name of the Stable Diffusion pipelines."""
        kind = StableDiffusionPipeline if self.text_encoder_2 is None else StableDiffusionXLPipeline
        return kind.encode_prompt(self, prompt, **options)

    def enable_vae_slicing(self) -> None:
        """Makes the autoencoder work on one image of a batch at a time."""
        self._switch_autoencoder("enable_slicing")

    def disable_vae_slicing(self) -> None:
        """Undoes `enable_vae_slicing`."""
        self._switch_autoencoder("disable_slicing")

    def enable_vae_tiling(self) -> None:
        """Makes the autoencoder work on one tile of a large image at a time, which changes results slightly."""
        self._switch_autoencoder("enable_tiling")

    def disable_vae_tiling(self) -> None:
        """Undoes `enable_vae_tiling`."""
        self._switch_autoencoder("disable_tiling")

    def _switch_autoencoder(self, method: str) -> None:
        autoencoder = self.vae or self.vqvae
        try:
            getattr(autoencoder, method)()
        except (AttributeError, NotImplementedError) as error:
            what = method.split("_")[1]
            raise UserError(f"A {type(autoencoder).__name__} has no {what}; leave it as it is.") from error

    @own_context()
    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike,
        kernel: KernelLike | None = None,
        kernel_size: int | None = None,
        noise_sigma: float | None = None,
        prompt: str = "",
        negative_prompt: str | None = None,
        guidance_scale: float = 1.0,
        e_step: Literal["proximal", "posterior"] = "proximal",
        num_inference_steps: int | None = None,
        boundary: Literal["auto", "circular", "valid"] = "auto",
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: Literal["pil", "pt", "np", "latent"] = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> LatentDEMPipelineOutput | tuple[Any, Tensor]:
        """Restores blurred images of one size.

        Args:
            image: a path, a PIL image, a tensor (C, H, W) or (B, C, H, W) in [0, 1], an array (H, W[, C]) or
                (B, H, W, C) of uint8, uint16 or floats in [0, 1]; or a list of such images. C is 1 or 3.
            kernel: the true kernel, if known, as `latentdem.deblur` takes it; then `kernel_size` is ignored.
            kernel_size: K of the K x K kernel, at least as wide as the blur; None finds it.
            noise_sigma: standard deviation of the measurement noise for images in [-1, 1] (twice that of images
                in [0, 1]); None estimates it.
            prompt: description of the images; "" for any image.
            negative_prompt: description that guidance leads away from.
            guidance_scale: scale of classifier-free guidance; 1 for none.
            e_step: "proximal" or "posterior", see `latentdem.deblur`.
            num_inference_steps: diffusion steps per 1000 timesteps; None takes the E-step's default.
            boundary: "circular", "valid" or "auto", see `latentdem.deblur`.
            generator: source of the random seed of the run; None for the global generator of PyTorch.
            latents: (B S, c, h, w) initial noise, with S posterior samples per image (4, or 1 with the
                posterior E-step); only with a known kernel and images that are restored as a whole.
            output_type: "pil", "pt", "np" or "latent".
            return_dict: whether to return a `LatentDEMPipelineOutput` or the tuple (images, kernels).
            callback_on_step_end: called as callback(pipeline, i, t, tensors) after every full EM step, and
                returns a dictionary, whose "latents" and "kernel", where present, replace those of the run.
            callback_on_step_end_tensor_inputs: names of its tensors: "latents" (N, c, h, w), "kernel"
                (M, 1, K, K), "pred_original_sample" (N, c, h, w), the clean latents. During the
                search for the kernel M counts the hypotheses of all images.

        Raises:
            UserError: an argument is wrong; the message says which and what to do.
        """
        if output_type not in OUTPUT_TYPES:
            raise UserError(f"Unknown output type '{output_type}'; give one of {', '.join(OUTPUT_TYPES)}.")
        for name in callback_on_step_end_tensor_inputs:
            if name not in self._callback_tensor_inputs:
                known = ", ".join(self._callback_tensor_inputs)
                raise UserError(f"A callback cannot be given '{name}'; it has {known}.")
        settings = Settings(
            kernel_size,
            noise_sigma,
            e_step,
            steps=num_inference_steps,
            seed=_draw_seed(generator),
            boundary=boundary,
        )
        restoration = ImageRestoration(
            _to_batch(image), settings, None if kernel is None else as_kernel(kernel)
        )
        device = self._execution_device
        prior = DiffusersPrior.from_pipeline(self, prompt, negative_prompt, guidance_scale)
        denoiser = prepare_for_inference(self.kernel_denoiser.denoiser(), device)
        count = 0

        def step_end(state: State) -> None:
            nonlocal count
            tensors = {
                "latents": state.latents,
                "kernel": state.parameters,
                "pred_original_sample": state.clean,
            }
            if callback_on_step_end is not None:
                inputs = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                returned = callback_on_step_end(self, count, state.step.t, inputs)
                state.latents = returned.get("latents", state.latents)
                state.parameters = returned.get("kernel", state.parameters)
            count += 1

        with self.progress_bar(total=100) as bar:

            def progress(stage: str, done: int, total: int) -> None:
                bar.set_description(stage, refresh=False)
                bar.update(100 * done // total - bar.n)

            result = restoration.run(
                prior, denoiser, device, progress=progress, on_step=step_end, latents=latents
            )
        images = result.tensor
        if output_type == "latent":
            images = prior.encode(to_rgb(images).to(device))
        images = VaeImageProcessor().postprocess(images, output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return images, result.kernel
        return LatentDEMPipelineOutput(images=images, kernels=result.kernel)


def _to_batch(image: ImageLike) -> Tensor:
    """One or several images in the conventions of diffusers as (B, C, H, W) in [-1, 1].

    Raises:
        UserError: there are no images, or they differ in size or are of another kind.
    """
    if isinstance(image, Tensor):
        return to_tensor(image, (0, 1))
    if isinstance(image, np.ndarray) and image.ndim == 4:
        image = list(image)
    if not isinstance(image, (list, tuple)):
        return to_tensor(image)
    batch = [_to_batch(element) for element in image]
    shapes = {tuple(element.shape[1:]) for element in batch}
    if len(shapes) != 1:
        raise UserError("Images that are restored together are of one size and kind; give them one by one.")
    return torch.cat(batch)


def _draw_seed(generator: torch.Generator | None) -> int:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise UserError("One generator is taken for the whole batch, not a list; give one torch.Generator.")
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))
