"""One step: a command with a time limit, its output in the log, and its outcome."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

PASSED, FAILED, LEFT_OUT = "passed", "FAILED", "left out"
GRACE = 3.0  # seconds between the request to end and the kill, in which pytest writes its summary


@dataclass(frozen=True)
class Outcome:
    """How a step ended: its name, PASSED, FAILED or LEFT_OUT, a sentence, its output and how long it took."""

    name: str
    state: str
    detail: str = ""
    output: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.state == FAILED


def run(
    name: str,
    command: Sequence[str],
    log: Path,
    seconds: float,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a command to its end or time limit, with its output at the end of the log. Never raises.

    At the limit the whole process group of the command ends, and what it has left running ends with it.
    """
    print(f"{name} ...", flush=True)
    program = shutil.which(command[0])
    if program is None:
        return Outcome(name, LEFT_OUT, f"{command[0]} was not found")
    if seconds <= 0:
        return Outcome(name, LEFT_OUT, "no time was left")
    started = time.monotonic()
    with log.open("a") as file:
        file.write(f"\n==== {name}: {' '.join(command)}\n")
        file.flush()
        begin = file.tell()
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                cwd=cwd,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(name, FAILED, f"could not be started: {error.strerror}")
        try:
            status = process.wait(seconds)
            detail = "" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            detail = f"stopped after {seconds:.0f} s"
            _signal_group(process, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:
            _signal_group(process, signal.SIGKILL)
            process.wait()
    with log.open(errors="replace") as file:
        file.seek(begin)
        output = file.read()
    return Outcome(name, FAILED if detail else PASSED, detail, output, time.monotonic() - started)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def count_tests(outcome: Outcome) -> Outcome:
    """Adds the summary of pytest to its outcome; a run in which no test passed has failed."""
    if outcome.state == LEFT_OUT:
        return outcome
    summary = re.findall(r"^=* ?((?:\d+ [a-z]+(?:, )?)+ in [\d.]+s.*?)(?: =*)?$", outcome.output, re.MULTILINE)
    if not summary:
        return replace(outcome, state=FAILED, detail=f"{outcome.detail}; no summary of pytest".lstrip("; "))
    if not re.search(r"\b[1-9]\d* passed", summary[-1]):
        return replace(outcome, state=FAILED, detail=f"no test passed: {summary[-1]}")
    return replace(outcome, detail="; ".join(filter(None, [summary[-1], outcome.detail])))


def read_sanitizer(outcome: Outcome) -> Outcome:
    """Adds the summary of compute-sanitizer to its outcome; without it, or without an end, a failure."""
    if outcome.state == LEFT_OUT:
        return outcome
    summary = re.findall(r"^=+ ((?:ERROR|RACECHECK) SUMMARY: (\d+) .*)$", outcome.output, re.MULTILINE)
    finished = re.findall(r"^(\d+ failures)$", outcome.output, re.MULTILINE)
    missing = [] if summary else ["no summary of compute-sanitizer"]
    missing += [] if finished else ["the kernels were not all run"]
    errors = any(number != "0" for _, number in summary)
    details = [*(text for text, _ in summary), *finished, *missing, outcome.detail]
    state = FAILED if errors or missing else outcome.state
    return replace(outcome, state=state, detail="; ".join(filter(None, details)))


def read_rows(outcome: Outcome) -> Outcome:
    """Takes the last line of a program of this package, which says how many rows it wrote, into its outcome."""
    lines = outcome.output.split("\n")
    last = next((line for line in reversed(lines) if re.match(r"\d+ rows, \d+ failed$", line)), "")
    return replace(outcome, detail="; ".join(filter(None, [last, outcome.detail])))
