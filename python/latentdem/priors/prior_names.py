"""Priors by name: the shipped one, aliases, folders, files and ids on the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checks import resolve_precision
from ..errors import UserError

_log = logging.getLogger(__name__)

FILES = (".ckpt", ".safetensors")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class PriorNames:
    """The names of the priors of one kind.

    Attributes:
        embedded: name of the shipped prior.
        weights: folder of its weights.
        native: its class, with `from_pretrained`.
        published: returns the class of priors published elsewhere, with `from_pretrained` and
            `from_single_file`; it is imported only then, with diffusers, which takes seconds.
        aliases: ids on the Hugging Face hub by the short names that stand for them.
    """

    embedded: str
    weights: Path
    native: Any
    published: Callable[[], Any]
    aliases: dict[str, str]

    def load(self, prior: Any, device: torch.device, precision: str = "auto") -> Any:
        """Loads the prior called `prior` without a download.

        Args:
            prior: the name of the shipped prior, an alias, a folder in the layout of either class (that of
                `published` has model_index.json), a .ckpt or .safetensors file, the id "owner/name" of a
                checkpoint in the cache of the Hugging Face hub; or a prior itself, which is returned.
            device: where the networks run.
            precision: what they compute in, see `resolve_precision`; "auto" leaves it to the class `native`,
                and is float16 on CUDA and else float32 for `published`. No matter for a prior itself.

        Raises:
            UserError: there is no such prior or precision, or its weights are not on this machine or cannot be
                loaded.
        """
        if not isinstance(prior, (str, Path)):
            return prior
        name = self.aliases.get(str(prior), str(prior))
        path = Path(name)
        chosen = resolve_precision(precision)
        _log.info("Loading the prior %s on %s, precision %s.", name, device, precision)
        if name == self.embedded or (path.is_dir() and not (path / "model_index.json").exists()):
            known = {} if chosen is None else {"precision": chosen}
            return self.native.from_pretrained(self.weights if name == self.embedded else path, device, **known)
        dtype = chosen or (torch.float16 if device.type == "cuda" else torch.float32)
        options = {"torch_dtype": dtype, "device": device, "local_files_only": True}
        if path.suffix in FILES:
            return self.published().from_single_file(path, **options)
        if path.is_dir() or HUB_ID.fullmatch(name):
            return self.published().from_pretrained(name, **options)
        raise UserError(
            f"Unknown prior '{prior}'; give {', '.join((self.embedded, *self.aliases))}, a folder, a .ckpt or "
            ".safetensors file, or the owner/name of a checkpoint on the Hugging Face hub."
        )


def name_of(prior: object) -> str:
    """The name by which a prior was requested, its own name, or that of its class."""
    return str(prior) if isinstance(prior, (str, Path)) else getattr(prior, "name", type(prior).__name__)
