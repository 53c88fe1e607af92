"""Autoencoders of latent diffusion models, as other people define them, on the operations of latentdem_ext."""

from ._accelerate import AcceleratedVAE, accelerate_vae
from ._tiling import Window, blend_tiles, tile_windows, tiled_decode

__all__ = ["AcceleratedVAE", "Window", "accelerate_vae", "blend_tiles", "tile_windows", "tiled_decode"]
