"""What the name of a prior stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError

FILES = (".ckpt", ".safetensors")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Names:
    """The names of the priors of one kind.

    Attributes:
        embedded: name of the prior that ships.
        weights: its folder.
        own: its class, with `from_pretrained`.
        public: class of the priors that others published, with `from_pretrained` and `from_single_file`.
        short: ids on the Hugging Face hub by the short names that stand for them.
    """

    embedded: str
    weights: Path
    own: Any
    public: Any
    short: dict[str, str]

    def load(self, prior: Any, device: torch.device) -> Any:
        """The prior that `prior` names; nothing is downloaded, weights are in float16 on CUDA, else in float32.

        Args:
            prior: the name of the prior that ships, a short name, a folder in the layout of either class (that
                of `public` has model_index.json), a .ckpt or .safetensors file, the id "owner/name" of a
                checkpoint in the cache of the Hugging Face hub; or a prior itself, which is returned.
            device: where the networks run.

        Raises:
            UserError: no such prior, or its weights are not on this machine or cannot be loaded.
        """
        if not isinstance(prior, (str, Path)):
            return prior
        name = self.short.get(str(prior), str(prior))
        path = Path(name)
        if name == self.embedded:
            return self.own.from_pretrained(self.weights, device)
        if path.is_dir() and not (path / "model_index.json").exists():
            return self.own.from_pretrained(path, device)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        options = {"torch_dtype": dtype, "device": device, "local_files_only": True}
        if path.suffix in FILES:
            return self.public.from_single_file(path, **options)
        if path.is_dir() or HUB_ID.fullmatch(name):
            return self.public.from_pretrained(name, **options)
        raise UserError(
            f"Unknown prior '{prior}'; give {', '.join((self.embedded, *self.short))}, a folder, a .ckpt or "
            ".safetensors file, or the owner/name of a checkpoint on the Hugging Face hub."
        )


def name_of(prior: object) -> str:
    """The name by which a prior was requested, its own name, or that of its class."""
    return str(prior) if isinstance(prior, (str, Path)) else getattr(prior, "name", type(prior).__name__)
