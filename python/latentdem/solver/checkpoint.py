"""Long runs on disk, so that an interrupted run can be resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UserError
from ..io.files import atomic_path, keep_settings, make_folder
from .state import State, TraceStep

Tensors = dict[str, Tensor]
Solver = Callable[..., tuple[Tensor, Tensor]]


class Checkpoint:
    """A restoration in a folder: the results of finished runs of the solver, and the state of the current run.

    Everything between the runs follows from them, so it is computed again. On a CPU a resumed restoration gives
    the same bits as an uninterrupted one.

    Args:
        folder: created if it does not exist; call `remove` at the end.
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
        record_saved: Callable[[TraceStep], None],
        y: Tensor,
        parameters: Tensor,
        noise_sigma: Tensor,
        *,
        generator: torch.Generator,
        on_step: Callable[[State], None],
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """The result of `solver` for these arguments, read from disk as far as it was saved.

        Args:
            record_saved: called for the steps that were saved; the others go to `on_step`.
            y, parameters, noise_sigma, generator, on_step, options: of `LatentDEM.__call__`.

        Raises:
            UserError: the folder cannot be read or written.
        """
        finished = self.folder / f"{self._runs:03d}.safetensors"
        running = self.folder / f"{self._runs:03d}_running.safetensors"
        self._runs += 1
        steps: list[TraceStep] = []
        saved = _read(finished if finished.exists() else running, y.device)
        if saved:
            steps = _steps_of(saved)
            for step in steps:
                record_saved(step)
            generator.set_state(saved["generator"].cpu())
        if finished.exists():
            return saved["image"], saved["parameters"]
        last = time.monotonic()

        def record(state: State) -> None:
            nonlocal last
            on_step(state)
            steps.append(state.step)
            if time.monotonic() - last >= self.interval:
                tensors = {"latents": state.latents, "parameters": state.parameters, "clean": state.clean}
                if state.warm_start is not None:
                    tensors["warm_start"] = state.warm_start
                _write(running, tensors, steps, generator)
                last = time.monotonic()

        resume = None
        if saved:
            latents, last_parameters, clean = (saved[name] for name in ("latents", "parameters", "clean"))
            resume = State(latents, last_parameters, clean, steps[-1], saved.get("warm_start"))
        image, parameters = solver(
            y, parameters, noise_sigma, generator=generator, on_step=record, resume=resume, **options
        )
        _write(finished, {"image": image, "parameters": parameters}, steps, generator)
        running.unlink(missing_ok=True)
        return image, parameters

    def remove(self) -> None:
        """Deletes the files of this checkpoint, and the folder if nothing else is in it."""
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
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        temporary.write_bytes(save(plain, notes))  # `save_file` raises no OSError where the disk is full


def load_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[Tensors, dict[str, str]]:
    """The tensors and notes that `save_tensors` wrote; empty if there is no file.

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


def digest(tensor: Tensor) -> str:
    """A short hash of the values of a tensor."""
    return sha256(tensor.numpy(force=True).tobytes()).hexdigest()[:16]


def _write(path: Path, tensors: Tensors, steps: list[TraceStep], generator: torch.Generator) -> None:
    """Writes `tensors`, the generator's state, and the residuals and parameters of the steps."""
    names = json.dumps([[step.stage, step.t] for step in steps])
    history = {"residuals": [s.residual for s in steps], "parameters of steps": [s.parameters for s in steps]}
    tensors = {**tensors, "generator": generator.get_state()}
    tensors |= {name: torch.stack(values) for name, values in history.items() if values}
    save_tensors(path, tensors, {"steps": names})


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """The tensors that `_write` wrote, and the names of the steps under "steps"; empty if there is no file."""
    tensors, notes = load_tensors(path, device)
    return {**tensors, "steps": json.loads(notes["steps"])} if tensors else {}


def _steps_of(saved: dict[str, Any]) -> list[TraceStep]:
    return [
        TraceStep(stage, t, saved["residuals"][i], saved["parameters of steps"][i])
        for i, (stage, t) in enumerate(saved["steps"])
    ]
