"""Runs a program of other people with a time limit, and measures its time and memory."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .runner import MethodError

TIME_LIMIT = 3600.0  # seconds for one input
_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}")  # ${NAME} is left to the shell
_POLL = 0.05  # seconds between two looks at a running program
_LINE = 300  # characters of the last line of its output that an error message quotes


@dataclass(frozen=True)
class Usage:
    """What a program needed.

    Attributes:
        seconds: wall-clock time, its start included.
        cpu_seconds: CPU time of all its processes.
        memory_mb: largest resident memory of all its processes together, sampled 20 times a second; None where
            the system does not tell (other than Linux).
    """

    seconds: float
    cpu_seconds: float
    memory_mb: float | None


@dataclass(frozen=True)
class Command:
    """A command line of the shell with placeholders such as {input}.

    Attributes:
        template: the command; ${NAME} is a variable of the shell and no placeholder.
        time_limit: seconds after which it is stopped.
    """

    template: str
    time_limit: float = TIME_LIMIT

    @property
    def placeholders(self) -> frozenset[str]:
        """Names of the placeholders."""
        return frozenset(_PLACEHOLDER.findall(self.template))

    def check(self, allowed: Collection[str], needed: Collection[Collection[str]]) -> None:
        """Refuses unknown placeholders, and a command without one of each group in `needed`.

        Raises:
            UserError: a placeholder is unknown or missing.
        """
        shown = ", ".join(f"{{{name}}}" for name in allowed)
        if unknown := sorted(self.placeholders - set(allowed)):
            raise UserError(f"A command has no placeholder {{{unknown[0]}}}; there are {shown}.")
        for group in needed:
            if not self.placeholders & set(group):
                choice = " or ".join(f"{{{name}}}" for name in group)
                raise UserError(f"The command '{self.template}' does not say where {choice} goes; add it.")

    def run(self, values: Mapping[str, object], log: Path) -> Usage:
        """Runs the command in the current folder until it ends.

        The command and all that it started end together, at the time limit and when this process is
        interrupted.

        Args:
            values: by placeholder, quoted for the shell.
            log: file for all that it writes to the terminal.

        Raises:
            MethodError: it ended with another exit status than 0, or was stopped at the time limit.
        """
        if sys.platform == "win32":
            raise UserError("Commands run on Linux and macOS only; give the results as published:FOLDER.")
        line = _PLACEHOLDER.sub(lambda match: shlex.quote(str(values[match[1]])), self.template)
        started, memory = time.perf_counter(), 0.0
        with log.open("wb") as output:
            process = subprocess.Popen(
                line,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                done = 0
                while not done and time.perf_counter() - started < self.time_limit:
                    memory = max(memory, _memory(process.pid))
                    time.sleep(_POLL)
                    done, status, usage = os.wait4(process.pid, os.WNOHANG)
                if done:
                    process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                stopped = process.returncode is None
                _stop(process)
        seconds = time.perf_counter() - started
        if stopped:
            raise MethodError(f"it was stopped at the time limit of {self.time_limit:g} s{_quoted(log)}")
        if process.returncode:
            raise MethodError(f"it ended with exit status {process.returncode}{_quoted(log)}")
        return Usage(seconds, usage.ru_utime + usage.ru_stime, round(memory / 1e6, 1) or None)


def _memory(session: int) -> float:
    """Resident bytes of the processes of a session, 0 where there is no /proc.

    The resource usage of a child that the system reports is of no use here: on Linux its peak includes the
    memory of this process, from which the child was forked.
    """
    total, peak = 0.0, 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The fields after the name: state, parent, group, session, ..., the 22nd is the number of pages.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            status = (folder / "status").read_text()
        except (OSError, IndexError, ValueError):  # it ended in between
            continue
        if match := re.search(r"VmHWM:\s*(\d+) kB", status):
            peak = max(peak, 1024.0 * int(match[1]))
    return max(total, peak)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends all processes of the session of a program that still run."""
    with suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        process.wait()


def _quoted(log: Path) -> str:
    """The last line that the program wrote, as the end of a sentence."""
    lines = [text for line in log.read_text(errors="replace").splitlines() if (text := line.strip())]
    return f", after '{lines[-1][:_LINE]}'." if lines else " and wrote nothing."
