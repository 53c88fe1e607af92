"""Networks that are saved in a folder: a configuration in JSON, weights in a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from latentdem_ext import convolution

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


class Network(nn.Module):
    """A network with a configuration; `save_pretrained` and `loading.load_network` write and read both.

    The folders have the layout of diffusers' models. diffusers itself is not imported, which takes seconds.

    Args:
        config: the arguments of a subclass, which passes all of them on.

    Attributes:
        config: the same, by name.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def implied(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """What `config` may state besides the arguments, because diffusers does, and the only values of it."""
        return {}

    @classmethod
    def load_config(cls, folder: str | Path) -> dict[str, Any]:
        """The content of the configuration file in `folder`.

        Raises:
            OSError, ValueError: there is none, or it is no JSON.
        """
        return dict(json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The network, before training, that the content of a configuration file describes.

        Raises:
            ValueError: it describes a network that this class cannot be.
            TypeError: it states what this class does not know.
        """
        arguments = {name: value for name, value in config.items() if not name.startswith("_")}
        for name, only in cls.implied(config).items():
            value = arguments.pop(name, only)
            if value != only:
                raise ValueError(f"its {name} is {value}, and {cls.__name__} has {only}")
        return cls(**arguments)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.parameters()).dtype

    def save_config(self, folder: str | Path) -> None:
        """Writes the configuration to `folder`, which is created where it does not exist."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": type(self).__name__, **self.implied(self.config), **self.config}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes configuration and weights to `folder`, which is created where it does not exist."""
        self.save_config(folder)
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(state, Path(folder) / WEIGHTS, metadata={"format": "pt"})


class Convolution(nn.Conv2d):
    """A 3 x 3 convolution that keeps height and width."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return convolution(x, self.weight, self.bias)
