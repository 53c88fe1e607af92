"""Reconstructions on disk, so that an interrupted one can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..solver.checkpoint import load_tensors, open_folder, remove_files, save_tensors
from .geometry.poses import PosePosterior
from .sampler import SamplerState

SearchResult = tuple[PosePosterior, Tensor]


class ViewCheckpoint:
    """One reconstruction in a folder: the result of the pose search, and the state of the sampler.

    Args:
        folder: created by `open` if it does not exist; `remove` deletes it at the end.

    Attributes:
        interval: seconds after which the state of the sampler is written again.
    """

    interval = 5.0

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._settings = self.folder / "settings.json"
        self._poses, self._views = (self.folder / f"{name}.safetensors" for name in ("poses", "views"))
        self._last = time.monotonic()

    def open(self, settings: dict[str, Any]) -> None:
        """Begins a reconstruction, or resumes one with the same settings.

        Args:
            settings: everything that determines the result, as plain data.

        Raises:
            UserError: the folder holds a reconstruction with other settings, or cannot be written.
        """
        open_folder(self._settings, settings, "a reconstruction")

    def search(self, search: Callable[[], SearchResult], generator: torch.Generator) -> SearchResult:
        """Result of `search`, the posterior of the cameras and the confidence, read from disk if it is there.

        Args:
            search: runs the pose search.
            generator: the generator of the search, which is left in the same state in either case.

        Raises:
            UserError: the folder cannot be read or written.
        """
        tensors, _ = load_tensors(self._poses)
        if tensors:
            generator.set_state(tensors["generator"])
            posterior = PosePosterior(*(tensors[part.name] for part in fields(PosePosterior)))
            return posterior, tensors["confidence"]
        posterior, confidence = search()
        tensors = {**vars(posterior), "confidence": confidence, "generator": generator.get_state()}
        save_tensors(self._poses, tensors, {})
        return posterior, confidence

    def resume(self) -> SamplerState | None:
        """Last state of the sampler that was written; None if there is none.

        Raises:
            UserError: the folder cannot be read.
        """
        tensors, notes = load_tensors(self._views)
        if not tensors:
            return None
        return SamplerState(int(notes["step"]), int(notes["steps"]), tensors.pop("latents"), tensors)

    def keep(self, state: SamplerState) -> None:
        """Writes the state of the sampler, every few seconds and after the last step.

        Raises:
            UserError: the folder cannot be written.
        """
        if time.monotonic() - self._last < self.interval and state.step < state.steps:
            return
        notes = {"step": str(state.step), "steps": str(state.steps)}
        save_tensors(self._views, {"latents": state.latents, **state.poses}, notes)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Deletes what was written, and the folder if it is empty then."""
        remove_files(self._poses, self._views, self._settings)
