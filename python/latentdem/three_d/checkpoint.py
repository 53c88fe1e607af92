"""Long reconstructions on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..io.files import keep_settings, make_folder
from ..solver.checkpoint import load_tensors, save_tensors
from .poses import Beliefs
from .sampler import Sampled

Found = tuple[Beliefs, Tensor]


class ViewCheckpoint:
    """One reconstruction in a folder: the cameras that the search found, and how far the views are.

    Args:
        folder: created by `open` where it does not exist; `remove` it at the end.

    Attributes:
        interval: seconds after which the views are written again.
    """

    interval = 5.0

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._settings = self.folder / "settings.json"
        self._poses, self._views = (self.folder / f"{name}.safetensors" for name in ("poses", "views"))
        self._last = time.monotonic()

    def open(self, settings: dict[str, Any]) -> None:
        """Begins a reconstruction, or goes on with one of the same settings.

        Args:
            settings: everything that determines the result, as plain data.

        Raises:
            UserError: the folder holds a reconstruction with other settings, or cannot be written.
        """
        make_folder(self.folder)
        what_helps = "choose another folder, or delete this one"
        keep_settings(self._settings, settings, "a reconstruction", what_helps)

    def search(self, search: Callable[[], Found], generator: torch.Generator) -> Found:
        """What `search` gives, beliefs of the cameras and confidence, from disk where they are there.

        Raises:
            UserError: the folder cannot be read or written.
        """
        found, _ = load_tensors(self._poses)
        if found:
            generator.set_state(found["generator"])
            return Beliefs(found["cameras"], found["weights"]), found["confidence"]
        beliefs, confidence = search()
        held = {**vars(beliefs), "confidence": confidence, "generator": generator.get_state()}
        save_tensors(self._poses, held, {})
        return beliefs, confidence

    def resume(self) -> Sampled | None:
        """How far the views were; None where they were not begun.

        Raises:
            UserError: the folder cannot be read.
        """
        found, notes = load_tensors(self._views)
        if not found:
            return None
        return Sampled(int(notes["step"]), int(notes["steps"]), found.pop("latents"), found)

    def keep(self, sampled: Sampled) -> None:
        """Writes how far the views are, every few seconds and at their end.

        Raises:
            UserError: the folder cannot be written.
        """
        if time.monotonic() - self._last < self.interval and sampled.step < sampled.steps:
            return
        notes = {"step": str(sampled.step), "steps": str(sampled.steps)}
        save_tensors(self._views, {"latents": sampled.latents, **sampled.moving}, notes)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Deletes what was written, and the folder if nothing else is in it."""
        for path in (self._poses, self._views, self._settings):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()
