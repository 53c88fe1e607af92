"""The record of a run: what became of each photograph, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import _console as console
from ._console import log
from ._jobs import Job
from ._status import FAILED, INCOMPLETE
from ._task import Outcome, Outputs


@dataclass
class Record:
    """How a run went, in the order of what happened."""

    restored: list[Job] = field(default_factory=list)
    unexplained: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    last: Outcome | None = None
    incomplete: bool = False  # whether something beside the photographs could not be written

    @property
    def done(self) -> int:
        """Photographs that were restored or failed."""
        return len(self.restored) + len(self.failed)

    def fail(self, job: Job, reason: str) -> None:
        """Keeps and says that a photograph could not be restored."""
        self.failed.append(job)
        self.reports.append(entry_of(job, "failed", reason=reason))
        console.say_error(reason)

    def status(self, complaint: int) -> int:
        """Exit status, given that of a complaint about results that are probably wrong."""
        if self.failed and not self.restored and not self.skipped:
            return FAILED
        return INCOMPLETE if self.failed or self.incomplete else complaint

    def write(self, path: Path, several: bool) -> None:
        """Writes the reports to `path`, in a list if there are `several` photographs."""
        from ..io.files import write_json

        try:
            write_json(path, self.reports if several else self.reports[0])
        except UserError as error:
            self.incomplete = True
            log.warning("%s", error)

    def summarise(self, outputs: Outputs, several: bool) -> None:
        """Prints what was written, and how many photographs of `several` were not."""
        to_stderr = outputs.out == "-" or any(job.target is None for job in self.restored)
        if not several:
            if self.last is not None:
                written = str(self.restored[0].target or "standard output")
                more = [] if outputs.extras is None else [("extras", str(outputs.extras))]
                console.print_table([("written", written), *more, *self.last.rows], to_stderr=to_stderr)
            for job in self.skipped:
                console.print_table([("exists already", str(job.target))])
            return
        folders = dict.fromkeys(str(job.target.parent) for job in self.restored if job.target is not None)
        console.print_table(
            [
                *(("written to" if i == 0 else "", folder) for i, folder in enumerate(folders)),
                ("restored", str(len(self.restored))),
                ("not explained", str(len(self.unexplained))),
                ("there before", str(len(self.skipped))),
                ("failed", str(len(self.failed))),
            ]
        )

    def interrupted(self, total: int, kept: Path | None) -> str:
        """What to say of an interruption of a run of `total` photographs, `kept` being its checkpoint."""
        done = len(self.restored)
        if done and total > 1:
            how_many = f"{done} of {total} are written"
            return f"Interrupted; {how_many}, and the same command with --skip-existing continues."
        if done:
            written = self.restored[0].target or "The result"
            return f"Interrupted; {written} is written, but not all that goes with it."
        if kept is not None:
            return f"Interrupted; the run is saved in {kept}, and the same command resumes it."
        return "Interrupted; nothing was written."


def entry_of(job: Job, status: str, **report: Any) -> dict[str, Any]:
    """The report of a photograph, as plain data."""
    target = "standard output" if job.target is None else str(job.target)
    named = {"input": job.name, "output": None if status == "failed" else target, "status": status}
    # Names that are not text, as some file systems allow, are written with escapes.
    plain = {key: value and value.encode(errors="backslashreplace").decode() for key, value in named.items()}
    return {**plain, **report}
