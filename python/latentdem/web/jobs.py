"""The one photograph that the page's server is restoring, or restored last."""

from __future__ import annotations

import logging
import re
import secrets
import tempfile
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from torch import Tensor

from ..errors import UserError
from ..io.files import write_json
from ..io.images import ImageFile, read_bytes, write_image
from ..io.kernels import write_kernel
from ..output.pictures import kernel_thumbnail, uncertainty_levels, write_uncertainty
from ..output.report import build_report
from ..output.result import Result
from .choices import Choices
from .restorer import Restore

_log = logging.getLogger(__name__)

MAX_UPLOAD = 64 * 2**20  # bytes
_LOOK_EVERY = 0.5  # seconds between the pictures of a run
_PATIENCE = 20.0  # seconds that a cancelled run may take to end when the server stops


class Busy(UserError):
    """A photograph is being restored; only one is at a time."""


class _Cancelled(Exception):
    """Ends a restoration from inside its hooks."""


class Job:
    """One photograph, its restoration, and the files made of it; it is a `Watch` of its restoration.

    Args:
        data: the contents of the photograph's file.
        name: of that file; a path before it does not count.
        choices: what the user chose.

    Attributes:
        folder: where the files are.
        status: "running", "done", "failed" or "cancelled".

    Raises:
        UserError: the file is not a photograph that can be read.
    """

    def __init__(self, data: bytes, name: str, choices: Choices) -> None:
        name = PurePosixPath(PureWindowsPath(name).as_posix()).name or "photograph"
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            photograph = read_bytes(data)
        self.notes = [str(warning.message) for warning in said]
        self.id, self.name, self.choices, self.data = secrets.token_urlsafe(9), name, choices, data
        self.photograph: ImageFile = replace(photograph, path=Path(name))
        self.status, self.stage, self.message = "running", "starting", ""
        self.fraction, self.looks = 0.0, 0
        self.found: dict[str, Any] = {}
        self.files: dict[str, str] = {}  # what the page asks for, and the file's name
        self._begun, self._seconds, self._looked = time.monotonic(), 0.0, 0.0
        self._cancel = threading.Event()
        self._place = tempfile.TemporaryDirectory(prefix="latentdem-page-")
        self.folder = Path(self._place.name)
        write_image(self.folder / "before.png", photograph.pixels)
        self.files["before"] = "before.png"

    def state(self) -> dict[str, Any]:
        """What the page shows, as plain data."""
        running = self.status == "running"
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "stage": "cancelling" if running and self._cancel.is_set() else self.stage,
            "fraction": round(self.fraction, 4),
            "seconds": round(time.monotonic() - self._begun if running else self._seconds),
            "looks": self.looks,
            "message": self.message,
            "notes": list(self.notes),
            "found": dict(self.found),
            "files": dict(self.files),
            "width": self.photograph.pixels.shape[-1],
            "height": self.photograph.pixels.shape[-2],
        }

    def run(self, restore: Restore) -> None:
        """Restores the photograph; whatever happens is in `status` and `message` afterwards."""
        status = "failed"
        try:
            self._keep(restore(self.photograph, self.choices, self))
            status = "done"
        except _Cancelled:
            status, self.message = "cancelled", "Cancelled; the photograph is as it was."
        except UserError as error:
            self.message = str(error)
        except Exception as error:
            _log.exception("The restoration of %s failed.", self.name)
            reason = " ".join(str(error).split())[:200]
            self.message = f"The restoration failed: {type(error).__name__}: {reason}"
        self._seconds = time.monotonic() - self._begun
        self.status = status

    def cancel(self) -> None:
        """Asks the restoration to end after its current step."""
        self._cancel.set()

    def remove(self) -> None:
        """Removes its files."""
        self._place.cleanup()

    def progress(self, stage: str, done: int, total: int) -> None:
        if self._cancel.is_set():
            raise _Cancelled
        self.stage, self.fraction = stage, done / max(total, 1)

    def wants_look(self) -> bool:
        return time.monotonic() - self._looked >= _LOOK_EVERY

    def look(self, image: Tensor, kernel: Tensor) -> None:
        number = self.looks + 1
        picture, blur = f"look_{number}.jpg", f"look_kernel_{number}.png"
        write_image(self.folder / picture, image)
        kernel_thumbnail(kernel).save(self.folder / blur)
        self.files |= {"look": picture, "look_kernel": blur}
        self.looks, self._looked = number, time.monotonic()
        for old in self.folder.glob(f"look*_{number - 2}.*"):  # the one between may just be sent
            old.unlink()

    def _keep(self, result: Result) -> None:
        """Writes what can be downloaded."""
        # A name from outside becomes part of a file's name here, so only plain characters of it stay.
        stem = re.sub(r"[^\w -]+", "_", self.photograph.path.stem if self.photograph.path else "")[:80]
        stem = f"{stem or 'photograph'}_deblurred"
        restored = self.folder / (stem + self.photograph.suffix)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result.save(restored)
        self.notes += [str(warning.message) for warning in said]
        write_image(self.folder / "after.png", result.tensor)
        array, picture = write_kernel(self.folder / f"{stem}_kernel", result.kernel)
        kernel_thumbnail(result.kernel).save(self.folder / "kernel.png")
        report = self.folder / f"{stem}_report.json"
        write_json(report, {**build_report(result), "input": self.name})
        self.files |= {
            "after": "after.png",
            "kernel": "kernel.png",
            "result": restored.name,
            "kernel_array": array.name,
            "kernel_picture": picture.name,
            "report": report.name,
        }
        if result.uncertainty is not None:
            numbers, shown = write_uncertainty(self.folder / f"{stem}_uncertainty", result.uncertainty)
            self.files |= {"uncertainty": shown.name, "uncertainty_array": numbers.name}
        self.found = {
            "explained": bool(result.explained[0]),
            "kernel_size": result.kernel.shape[-1],
            "noise_sigma": round(float(result.noise_sigma[0]), 4),
            "residual": round(float(result.residual[0]), 4),
        }
        if result.uncertainty is not None:
            self.found["uncertainty_white"] = round(uncertainty_levels(result.uncertainty)[1], 4)


class Desk:
    """Takes one photograph at a time; the last one stays until the next.

    Args:
        restore: the restoration.
    """

    def __init__(self, restore: Restore) -> None:
        self.job: Job | None = None
        self.closed = False
        self._restore, self._lock = restore, threading.Lock()
        self._thread: threading.Thread | None = None

    def state(self) -> dict[str, Any]:
        """What the page shows, as plain data."""
        job = self.job
        return {"job": None if job is None else job.state(), "max_upload": MAX_UPLOAD}

    def start(self, data: bytes, name: str, choices: Choices) -> Job:
        """Begins to restore a photograph.

        Raises:
            Busy: another one is being restored.
            UserError: the file is not a photograph that can be read.
        """
        with self._lock:
            if self.job is not None and self.job.status == "running":
                raise Busy(f"{self.job.name} is being restored; wait until it is done, or cancel it.")
            job = Job(data, name, choices)
            if self.job is not None:
                self.job.remove()
            self.job = job
            self._thread = threading.Thread(target=job.run, args=(self._restore,), daemon=True)
            self._thread.start()
            return job

    def close(self) -> None:
        """Ends everything: the streams of events, and the run once its step is done."""
        self.closed = True
        if self.job is not None:
            self.job.cancel()

    def clear(self) -> None:
        """Waits for a run that `close` cancelled, and removes the files."""
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        if self.job is not None:
            self.job.remove()
