"""Long runs on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError
from ..io.files import atomic_path, keep_settings, make_folder
from .state import State, TraceStep

Tensors = dict[str, Tensor]
Solver = Callable[..., tuple[Tensor, Tensor]]


class Checkpoint:
    """One restoration in a folder: what finished runs of the solver gave, and how far the current one is.

    Everything between the runs follows from them, so it is computed anew. On a CPU a resumed restoration gives
    the same bits as an uninterrupted one.

    Args:
        folder: created where it does not exist; `remove` it at the end.
        settings: everything that determines the result, as plain data.

    Attributes:
        interval: seconds after which the current run is written again.

    Raises:
        UserError: the folder holds a restoration with other settings, or cannot be written.
    """

    interval = 5.0

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self._runs = 0
        self._settings_path = self.folder / "settings.json"
        open_folder(self._settings_path, settings, "a restoration")

    def run(
        self,
        solver: Solver,
        keep: Callable[[TraceStep], None],
        y: Tensor,
        parameters: Tensor,
        noise_sigma: Tensor,
        *,
        generator: torch.Generator,
        on_step: Callable[[State], None],
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """What `solver` gives for these arguments, from disk as far as it is there.

        Args:
            keep: called for the steps that need not be made again; the others go to `on_step`.
            y, parameters, noise_sigma, generator, on_step, options: of `LatentDEM.__call__`.

        Raises:
            UserError: the folder cannot be read or written.
        """
        finished = self.folder / f"{self._runs:03d}.safetensors"
        running = self.folder / f"{self._runs:03d}_running.safetensors"
        self._runs += 1
        steps: list[TraceStep] = []
        found = _read(finished if finished.exists() else running, y.device)
        if found:
            steps = _steps_of(found)
            for step in steps:
                keep(step)
            generator.set_state(found["generator"].cpu())
        if finished.exists():
            return found["image"], found["parameters"]
        last = time.monotonic()

        def record(state: State) -> None:
            nonlocal last
            on_step(state)
            steps.append(state.step)
            if time.monotonic() - last >= self.interval:
                tensors = {"latents": state.latents, "parameters": state.parameters, "clean": state.clean}
                _write(running, tensors, steps, generator)
                last = time.monotonic()

        resume = State(found["latents"], found["parameters"], found["clean"], steps[-1]) if found else None
        image, parameters = solver(
            y, parameters, noise_sigma, generator=generator, on_step=record, resume=resume, **options
        )
        _write(finished, {"image": image, "parameters": parameters}, steps, generator)
        running.unlink(missing_ok=True)
        return image, parameters

    def remove(self) -> None:
        """Deletes what was written, and the folder if nothing else is in it."""
        remove_files(*self.folder.glob("[0-9]*.safetensors"), self._settings_path)


def open_folder(path: Path, settings: dict[str, Any], content: str) -> None:
    """Begins a run in the folder of `path`, or resumes the one that is there.

    Args:
        path: file of the settings.
        settings: everything that determines the result, as plain data.
        content: what the folder holds, as messages call it.

    Raises:
        UserError: the folder holds a run with other settings, or cannot be written.
    """
    make_folder(path.parent)
    keep_settings(path, settings, content, "choose another folder, or delete this one")


def remove_files(*paths: Path) -> None:
    """Deletes files of one folder, and the folder if it is empty then."""
    for path in paths:
        path.unlink(missing_ok=True)
    folder = paths[0].parent
    if not any(folder.iterdir()):
        folder.rmdir()


def save_tensors(path: Path, tensors: Tensors, notes: dict[str, str]) -> None:
    """Writes a safetensors file in one piece.

    Raises:
        UserError: `path` cannot be written.
    """
    with atomic_path(path) as temporary:
        plain = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
        save_file(plain, temporary, metadata=notes)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[Tensors, dict[str, str]]:
    """What `save_tensors` wrote there; nothing where there is no file.

    Raises:
        UserError: the file is damaged.
    """
    if not path.exists():
        return {}, {}
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged; delete the folder {path.parent} and start again.") from error


def digest(each: Tensor) -> str:
    """What tells a tensor from others."""
    return sha256(each.numpy(force=True).tobytes()).hexdigest()[:16]


def _write(path: Path, tensors: Tensors, steps: list[TraceStep], generator: torch.Generator) -> None:
    """A safetensors file of `tensors`, the generator's state, and residuals and parameters of the steps."""
    names = json.dumps([[step.stage, step.t] for step in steps])
    history = {"residuals": [s.residual for s in steps], "parameters of steps": [s.parameters for s in steps]}
    held = {**tensors, "generator": generator.get_state()}
    held |= {name: torch.stack(each) for name, each in history.items() if each}
    save_tensors(path, held, {"steps": names})


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """What `_write` wrote there, with the steps' names under "steps"; nothing where there is no file."""
    tensors, notes = load_tensors(path, device)
    return {**tensors, "steps": json.loads(notes["steps"])} if tensors else {}


def _steps_of(found: dict[str, Any]) -> list[TraceStep]:
    return [
        TraceStep(stage, t, found["residuals"][i].cpu(), found["parameters of steps"][i].cpu())
        for i, (stage, t) in enumerate(found["steps"])
    ]
