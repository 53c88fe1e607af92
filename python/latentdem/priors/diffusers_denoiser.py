"""The denoiser of blur kernels as a part of a pipeline of diffusers."""

from __future__ import annotations

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from .kernel_denoiser import KernelDenoiser


class KernelDenoiserModel(ModelMixin, ConfigMixin):
    """The layers of a `KernelDenoiser` in a class that diffusers saves, loads and moves with a pipeline.

    Args:
        layers, channels: see `KernelDenoiser`.
    """

    @register_to_config
    def __init__(self, layers: int = 5, channels: int = 32) -> None:
        super().__init__()
        self.net = KernelDenoiser(layers, channels).net

    @classmethod
    def sharing(cls, denoiser: KernelDenoiser) -> KernelDenoiserModel:
        """The model with the layers of `denoiser`, not copied."""
        model = cls(**denoiser.config)
        model.net = denoiser.net
        return model

    def denoiser(self) -> KernelDenoiser:
        """The denoiser with the layers of this model, not copied."""
        denoiser = KernelDenoiser(self.config["layers"], self.config["channels"])
        denoiser.net = self.net
        return denoiser
