"""`--engine ray`: the photographs of a run on the processes of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..distributed.pool import ATTEMPTS, Pool, Share, cluster, require_ray
from ..distributed.report import ParquetReport
from ..errors import UserError
from ..io.remote import address_of
from . import _console as console
from ._console import log
from ._jobs import Job
from ._record import Record, entry_of
from ._run import Runner
from ._task import Outputs, Task

_LIBRARY = logging.getLogger("latentdem")
_LOST = (
    f"{{}}: The process that restored it was lost {ATTEMPTS} times, perhaps for want of memory; give a smaller "
    "--batch-size or photograph."
)


@dataclass(frozen=True)
class RayEngine:
    """See `Engine`.

    Attributes:
        address: of a Ray cluster; None for one of this machine, for this run.
        cores: processor cores of each process.
        device: what the user gave.
        parquet: folder of the report; None for none.
    """

    address: str | None
    cores: int
    device: str
    parquet: Path | None

    def check(self, outputs: Outputs) -> None:
        require_ray()
        if "WORLD_SIZE" in os.environ:
            raise UserError(
                "WORLD_SIZE is set, so torchrun shares the photographs already; leave out that or --engine ray."
            )
        if outputs.out == "-":
            raise UserError("--engine ray writes to files; give a folder with -o.")
        if outputs.json is not None:
            raise UserError(
                "The report of --engine ray is a folder of Parquet files; give --parquet, not --json."
            )
        if self.parquet is not None and address_of(self.parquet) is not None:
            raise UserError("--parquet is a folder and no address; give one, and copy it after the run.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"--engine ray gives each process its device; leave out --device {self.device}.")

    def restore(
        self, jobs: Sequence[Job], task: Task, outputs: Outputs, record: Record, advance: console.Advance
    ) -> None:
        total = len(jobs)
        with _report(self.parquet, jobs, record) as add:
            if not jobs:
                return
            advance("starting Ray", 0, total)
            with cluster(self.address):
                make = partial(
                    Worker, task, outputs, self.cores, total, Path.cwd(), _LIBRARY.getEffectiveLevel()
                )
                pool: Pool[list[Job], Part] = Pool(make, Share(self.cores, self._gpus()), total)
                for batch, part in pool.map(batches(jobs, task.batch_size)):
                    _take(record, batch, part or _given_up(batch), add)
                    advance(f"{record.done}/{total} {batch[-1].name}", record.done, total)

    def _gpus(self) -> int:
        """GPUs of each process."""
        import ray

        if self.device == "cpu":
            return 0
        gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
        if self.device == "cuda" and not gpus:
            raise UserError("No node of the Ray cluster has a GPU; leave out --device, or check --address.")
        return gpus


def ray_engine(
    wanted: bool, address: str | None, cores: int | None, parquet: Path | None, device: str
) -> RayEngine | None:
    """The engine with these options, or None where it is not `wanted`.

    Raises:
        UserError: options of the engine are given without it.
    """
    if wanted:
        return RayEngine(address, cores or 1, device, parquet)
    for name, value in {"address": address, "cores": cores, "parquet": parquet}.items():
        if value is not None:
            raise UserError(f"--{name} is an option of --engine ray; add that, or leave out --{name}.")
    return None


@contextmanager
def _report(
    folder: Path | None, jobs: Sequence[Job], record: Record
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What takes the reports of the photographs `jobs`, after those that were there before.

    Raises:
        UserError: as `ParquetReport`, at the beginning.
    """
    if folder is None:
        yield lambda entry: None
        return
    report = ParquetReport(folder)

    def written(write: Callable[[], None]) -> None:
        try:
            write()
        except UserError as error:
            record.incomplete = True
            log.warning("%s", error)

    skipped = {entry["input"]: entry for entry in (entry_of(job, "skipped") for job in record.skipped)}
    known = report.forget({entry_of(job, "")["input"] for job in jobs}, skipped)
    for name, entry in skipped.items():
        if name not in known:
            report.add(entry)
    try:
        yield lambda entry: written(partial(report.add, entry))
    finally:
        written(report.flush)


def _take(record: Record, batch: list[Job], part: Part, add: Callable[[dict[str, Any]], None]) -> None:
    """Adds a part to the record of the run, and its reports to the report."""
    own = {job: job for job in batch}  # not the copies that came back
    for jobs in ("restored", "unexplained", "failed"):
        getattr(record, jobs).extend(own[job] for job in getattr(part.record, jobs))
    record.incomplete |= part.record.incomplete
    for level, message in part.messages:
        log.log(level, "%s", message)
    for entry in part.record.reports:
        add(entry)


def _given_up(batch: list[Job]) -> Part:
    """What there is of photographs whose process was lost again and again."""
    part = Part(Record())
    for job in batch:
        part.record.fail(job, _LOST.format(job.name))
    return part


@dataclass
class Part:
    """What a process did: its record, and its messages with their levels."""

    record: Record
    messages: list[tuple[int, str]] = field(default_factory=list)


class Worker:
    """Restores batches in a process of the cluster, as `Runner` does here.

    Args:
        task, outputs: of the run.
        cores: of this process.
        count: photographs of the run.
        folder: what relative paths start from.
        level: of the messages to send back.
    """

    def __init__(self, task: Task, outputs: Outputs, cores: int, count: int, folder: Path, level: int) -> None:
        self._task, self._outputs, self._cores, self._count = task, outputs, cores, count
        self._folder, self._level = folder, level

    def prepare(self) -> None:
        import torch

        with suppress(OSError):  # another machine may have other folders, and the run only addresses
            os.chdir(self._folder)
        torch.set_num_threads(self._cores)
        _LIBRARY.setLevel(self._level)
        self._task.prepare(self._count)

    def work(self, batch: list[Job]) -> Part:
        part = Part(Record())
        heard = _Heard(part.messages)
        _LIBRARY.addHandler(heard)
        try:
            Runner(batch, self._task, self._outputs, part.record, several=True, advance=None).run()
        except Exception as error:  # a defect of the program, which must not end a run of days
            log.debug("In full:", exc_info=True)
            for job in batch:
                if job not in part.record.restored and job not in part.record.failed:
                    part.record.fail(
                        job, f"{job.name}: A defect of latentdem ({type(error).__name__}: {error})."
                    )
        finally:
            _LIBRARY.removeHandler(heard)
        part.record.last = None  # pixels
        return part


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """The photographs in batches of `size`, those of one size together as far as the files say it."""
    pending: dict[Any, list[Job]] = {}
    for job in jobs:
        kind = _kind(job.source) if size > 1 else None
        pending.setdefault(kind, []).append(job)
        if len(pending[kind]) == size:
            yield pending.pop(kind)
    yield from pending.values()


def _kind(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size, image.mode
    except Exception:  # which the process will say that reads it
        return None


class _Heard(logging.Handler):
    """Keeps messages with their levels."""

    def __init__(self, messages: list[tuple[int, str]]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append((record.levelno, self.format(record)))
