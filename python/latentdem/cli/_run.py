"""Restores photographs one after the other or in batches, writes the results, and says how it went."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

import typer

from ..errors import UserError
from ..io.remote import address_of, existing
from . import _console as console
from ._console import log
from ._jobs import Job, plan, standard_input, suffix_of
from ._outputs import check_outputs
from ._record import Record, entry_of
from ._share import Share
from ._status import INTERRUPTED
from ._task import Outcome, Outputs, Task

if TYPE_CHECKING:
    from ..io.images import ImageFile


class Engine(Protocol):
    """What restores the photographs of a run, where that is not this process."""

    def check(self, outputs: Outputs) -> None:
        """Refuses outputs that do not fit, before anything is read."""
        ...

    def restore(
        self, jobs: Sequence[Job], task: Task, outputs: Outputs, record: Record, advance: console.Advance
    ) -> None:
        """Restores the photographs of `jobs` and keeps the record of it."""
        ...


def run(images: Sequence[Path], task: Task, outputs: Outputs, engine: Engine | None = None) -> None:
    """Restores what `images` name, see `plan`, and ends the command with the exit status that says how it went.

    Args:
        images: the photographs, see `plan`.
        task: what to do with them.
        outputs: where the results go.
        engine: what restores them; None for this process.

    Raises:
        UserError: the arguments do not fit, before anything is computed.
    """
    from ..output.report import versions

    if engine is not None:
        engine.check(outputs)
    with standard_input(images) as stdin:
        planned = plan(images, outputs.out, task.ending, outputs.suffix, stdin)
        share = Share.of(os.environ)
        several = engine is not None or len(planned) > 1 or images[0].is_dir()
        jobs, record = share.pick(planned), Record()
        if outputs.existing.skip:
            there = existing([job.target for job in jobs if job.target is not None])
            record.skipped = [job for job in jobs if job.target in there]
            jobs = [job for job in jobs if job.target not in there]
            if outputs.json is not None:
                record.reports += [entry_of(job, "skipped") for job in record.skipped]
        _check(jobs, task, outputs)
        log.debug("Versions: %s.", ", ".join(f"{name} {version}" for name, version in versions().items()))
        if jobs and engine is None:
            task.prepare(len(jobs))
        try:
            with console.progress_bar() as advance:
                if engine is not None:
                    engine.restore(jobs, task, outputs, record, advance)
                else:
                    Runner(jobs, task, outputs, record, several, advance if share.index == 0 else None).run()
        except KeyboardInterrupt:
            console.say_error(record.interrupted(len(jobs), task.kept))
            raise typer.Exit(INTERRUPTED) from None
    complaint = 0
    if record.unexplained:
        sentence, complaint = task.complaint(record.unexplained, several)
        console.say_error(sentence)
    if outputs.json is not None and record.reports:
        record.write(share.own(outputs.json), several)
    record.summarise(outputs, several)
    # One process that fails makes torchrun end the others.
    if share.count == 1 and (status := record.status(complaint)):
        raise typer.Exit(status)


def _check(jobs: Sequence[Job], task: Task, outputs: Outputs) -> None:
    """Makes sure that the results can be written, and makes their folders."""
    from ..io.files import make_folder

    targets = [job.target for job in jobs if job.target is not None]
    if len(targets) < len(jobs) and (sys.stdout is None or sys.stdout.isatty()):
        raise UserError("Standard output is no file or program; send it to one, or give -o FILE.")
    if len(targets) > 1 and not outputs.existing.given and (there := existing(targets)):
        raise UserError(
            f"{len(there)} of the {len(targets)} results exist already, such as {min(there)}; add "
            "--skip-existing to make the others, or --overwrite to make all of them."
        )
    if outputs.extras is not None and address_of(outputs.extras) is not None:
        raise UserError("--extras is a folder and no address; give one, and copy it after the run.")
    others = [] if outputs.json is None else [outputs.json]
    if outputs.extras is not None:
        others += [outputs.extras / f"{job.key}_report.json" for job in jobs]
    inputs = [*(job.source for job in jobs), *task.inputs]
    if outputs.out is None:
        for folder in {path.parent for path in targets}:
            make_folder(folder)
    if outputs.extras is not None:
        make_folder(outputs.extras)
    check_outputs(targets, inputs, outputs.existing)
    check_outputs(others, inputs, outputs.existing)


class Runner:
    """Restores the photographs of `jobs` in this process and keeps the record of it.

    Args:
        jobs, task, outputs, record: what to restore, how, where to and what became of it.
        several: whether messages name the photograph.
        advance: shows progress; None for none.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        task: Task,
        outputs: Outputs,
        record: Record,
        several: bool,
        advance: console.Advance | None,
    ) -> None:
        self._jobs, self._task, self._outputs, self._record = jobs, task, outputs, record
        self._several, self._advance = several, advance
        self._warnings: dict[Job, list[str]] = defaultdict(list)

    def run(self) -> None:
        from ..io.images import read_image

        pending: dict[Hashable, list[tuple[Job, ImageFile]]] = {}
        for job in self._jobs:
            self._show(job.name, 0, 0, 1)
            try:
                with self._heard(job):
                    source = read_image(job.source)
            except UserError as error:
                self._fail(job, str(error))
                continue
            group = self._task.group(source)
            pending.setdefault(group, []).append((job, source))
            if len(pending[group]) == self._task.batch_size:
                self._restore(pending.pop(group), group)
        for group, batch in pending.items():
            self._restore(batch, group)

    def _restore(self, batch: list[tuple[Job, ImageFile]], group: Hashable) -> None:
        names = ", ".join(job.name for job, _ in batch)
        log.info("Restoring %s.", names)

        def within(stage: str, part: int, whole: int) -> None:
            self._show(names if self._several else stage, len(batch), part, whole)

        try:
            with self._heard(*(job for job, _ in batch)):
                outcomes = self._task.restore([source for _, source in batch], group, within)
        except (UserError, MemoryError, RuntimeError) as error:
            reason = _reason(error)
            for job, _ in batch:
                self._fail(job, f"{job.name}: {reason}" if self._several else reason)
            return
        for (job, _), outcome in zip(batch, outcomes, strict=True):
            try:
                self._write(job, outcome)
            except UserError as error:
                self._fail(job, str(error))

    def _write(self, job: Job, outcome: Outcome) -> None:
        """The photograph first: what fails after it costs nothing but itself."""
        from ..io.files import write_json
        from ..io.images import write_image

        with self._heard(job):
            if job.target is None:
                _to_standard_output(outcome, self._outputs.suffix or suffix_of(job.source))
            else:
                write_image(job.target, outcome.image, like=outcome.like)
        self._record.restored.append(job)
        self._record.last = outcome
        if not outcome.explained:
            self._record.unexplained.append(job)
        status = "restored" if outcome.explained else "unexplained"
        entry = entry_of(job, status, warnings=self._warnings[job], **outcome.report)
        self._record.reports.append(entry)
        log.info("Written: %s.", job.target or "standard output")
        if self._outputs.extras is None:
            return
        extras = {**outcome.extras, "_report.json": lambda path: write_json(path, entry)}
        for ending, write in extras.items():
            path = self._outputs.extras / f"{job.key}{ending}"
            try:
                write(path)
            except (UserError, OSError, ValueError, ImportError) as error:
                self._record.incomplete = True
                log.warning("The result of %s is written, but not %s: %s", job.name, path, error)

    @contextmanager
    def _heard(self, *jobs: Job) -> Iterator[None]:
        """Says what the block warns of, and keeps it for the reports of `jobs`."""
        with warnings.catch_warnings(record=True) as caught:
            try:
                yield
            finally:
                for sentence in (str(warning.message) for warning in caught):
                    for job in jobs:
                        sentence = sentence.replace(str(job.source), job.name)  # of a temporary file
                        self._warnings[job].append(sentence)
                    log.warning("%s", sentence)

    def _fail(self, job: Job, reason: str) -> None:
        # Standard input is read from a temporary file.
        self._record.fail(job, reason.replace(str(job.source), job.name))

    def _show(self, text: str, count: int, part: float, whole: float) -> None:
        """Shows progress within `count` photographs."""
        if self._advance is None:
            return
        total, done = len(self._jobs), self._record.done
        if self._several:
            text = f"{min(done + 1, total)}/{total} {text}"
        self._advance(text, done + count * part / max(whole, 1), total)


def _reason(error: Exception) -> str:
    """What to tell the user of an error of one restoration; a defect of the program is raised again."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or re.search(r"out of memory|allocate memory", str(error)):
        return "There is not enough memory; give a smaller --batch-size or photograph, or use --device cpu."
    raise error


def _to_standard_output(outcome: Outcome, suffix: str) -> None:
    from ..io.images import write_image

    with TemporaryDirectory(prefix="latentdem-") as folder:
        path = Path(folder) / f"result{suffix}"
        write_image(path, outcome.image, like=outcome.like)
        try:
            rest = memoryview(path.read_bytes())
            while rest:  # with PYTHONUNBUFFERED, a write may take a part only, as on a disk that is nearly full
                rest = rest[sys.stdout.buffer.write(rest) :]
            sys.stdout.buffer.flush()
        except OSError as error:
            raise UserError(
                f"Cannot write to standard output: {(error.strerror or str(error)).lower()}."
            ) from error
