"""The prior shipped with the package, and any prior saved in the same layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from latentdem_ext import accelerate_vae, backends, requested_backend

from ..context import own_context
from .autoencoder import EmbeddedAutoencoder
from .loading import check_parts, load_network, load_schedule
from .padding import pad_to_multiple, padded_size
from .unet import UNet

EMBEDDED_WEIGHTS = Path(__file__).parent.parent / "weights" / "embedded"


class EmbeddedPrior:
    """A small unconditional latent diffusion prior: downsampling 4, 8 channels (docs/reference/model_card.md).

    Args:
        autoencoder: images in [-1, 1] to standardised latents and back.
        unet: noise predictor on those latents.
        alphas_cumprod: (T,) cumulative alphas that the noise predictor was trained with.
        autocast: data type of the convolutions of the networks; None for that of the weights.
    """

    capturable = True

    def __init__(
        self,
        autoencoder: EmbeddedAutoencoder,
        unet: UNet,
        alphas_cumprod: Tensor,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        accelerate_vae(self.autoencoder)
        self.unet = unet.eval().requires_grad_(False)
        convert_conv2d_weight_memory_format(self.unet, torch.channels_last)
        self.alphas_cumprod, self._autocast = alphas_cumprod, autocast
        halvings = len(unet.config["block_out_channels"]) - 1
        self.multiple = autoencoder.downsampling * 2**halvings

    @classmethod
    @own_context()
    def from_pretrained(
        cls,
        path: str | Path = EMBEDDED_WEIGHTS,
        device: torch.device | str = "cpu",
        precision: torch.dtype | None = None,
    ) -> EmbeddedPrior:
        """Loads a folder with `autoencoder/`, `unet/` and `scheduler/`, as written by tools/train_prior.py.

        Args:
            path: the folder.
            device: where the networks run.
            precision: what they compute in; None for bfloat16 where it is fast, and else float32.

        Raises:
            UserError: the folder or a file in it is missing, unreadable or of another shape.
        """
        path = Path(path)
        remedy = "give 'embedded' or a folder written by tools/train_prior.py export"
        check_parts(path, ("autoencoder", "unet", "scheduler"), "prior", remedy)
        autoencoder = load_network(EmbeddedAutoencoder, path / "autoencoder", device)
        unet = load_network(UNet, path / "unet", device)
        schedule = load_schedule(path / "scheduler")
        device = torch.device(device)
        if precision is None and computes_in_bfloat16(device) and not convolves_fast_in_float32(device):
            precision = torch.bfloat16
        autocast = None if precision == torch.float32 else precision
        return cls(autoencoder, unet, schedule.alphas_cumprod, autocast)

    @property
    def networks(self) -> list[nn.Module]:
        """Those that the methods call."""
        return [self.unet, self.autoencoder.encoder, self.autoencoder.decoder]

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(c, h, w) of the latent of an image of this size, after padding to a multiple of 16."""
        factor = self.autoencoder.downsampling
        rows, columns = padded_size(height, width, self.multiple)
        return self.autoencoder.config["latent_channels"], rows // factor, columns // factor

    def encode(self, x: Tensor) -> Tensor:
        """Standardised latents of `x` (B, 3, H, W) in [-1, 1], right and lower edge replicated as needed."""
        x = pad_to_multiple(x, self.multiple)
        with self._precision(x):
            return self.autoencoder.encode(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    def decode(self, z: Tensor, height: int, width: int) -> Tensor:
        """Images (B, 3, height, width) of latents `z`, not clamped."""
        with self._precision(z):
            image = self.autoencoder.decode(z.contiguous(memory_format=torch.channels_last))
        return image[..., :height, :width].to(z.dtype)

    def predict_noise(self, z_t: Tensor, t: int | Tensor) -> Tensor:
        """Noise predicted by the U-Net, (B, c, h, w), at timestep `t`, a number or a tensor ()."""
        with self._precision(z_t):
            noise: Tensor = self.unet(z_t.contiguous(memory_format=torch.channels_last), t)
        return noise.to(z_t.dtype)

    def _precision(self, like: Tensor) -> torch.autocast:
        return torch.autocast(like.device.type, self._autocast, enabled=self._autocast is not None)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether networks compute in bfloat16: where it is fast, unless a backend is requested.

    A backend of the operations is requested in order to compare it. bfloat16 turns a difference of 1e-7 before
    a network into one of 1e-2 after it where the values round to different sides.
    """
    return requested_backend() is None and bfloat16_is_fast(device)


def convolves_fast_in_float32(device: torch.device) -> bool:
    """Whether 3 x 3 convolutions in float32 take no longer than in bfloat16 (docs/research/operations.md).

    On a CPU with the compiled module, unless it has AMX: a quarter of the multiplications in float32 costs less
    than all of them in AVX512-BF16.
    """
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and backends()["cpp"].available and not (amx is not None and amx())


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16 on a CPU)."""
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not public, but present since PyTorch 2.4 and the only query; without it float32 is the safe answer.
    queries = (
        getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return device.type == "cpu" and any(query() for query in queries if query is not None)
