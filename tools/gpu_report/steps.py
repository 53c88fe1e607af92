"""One step: a command with a time limit, its output in a file, and its outcome."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

PASSED, FAILED, LEFT_OUT = "passed", "FAILED", "left out"


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
    logs: Path,
    seconds: float,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a command to its end or time limit, with its output in logs/<name>.log. Never raises."""
    print(f"{name} ...", flush=True)
    program = shutil.which(command[0])
    if program is None:
        return Outcome(name, LEFT_OUT, f"{command[0]} was not found")
    if seconds <= 0:
        return Outcome(name, LEFT_OUT, "no time was left")
    log = logs / f"{name.replace(' ', '_')}.log"
    started = time.monotonic()
    with log.open("w") as file:
        try:
            status = subprocess.run(
                [program, *command[1:]],
                cwd=cwd,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
            detail = "" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            detail = f"stopped after {seconds:.0f} s"
        except OSError as error:
            detail = f"could not be started: {error.strerror}"
    output = log.read_text(errors="replace")
    taken = time.monotonic() - started
    return Outcome(name, FAILED if detail else PASSED, detail, output, taken)


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
    """Adds the summaries of compute-sanitizer and pytest to their outcome; without the first it failed."""
    if outcome.state == LEFT_OUT:
        return outcome
    outcome = count_tests(outcome)
    summary = re.findall(r"^=+ ((?:ERROR|RACECHECK) SUMMARY: (\d+) .*)$", outcome.output, re.MULTILINE)
    if not summary:
        return replace(outcome, state=FAILED, detail=f"{outcome.detail}; no summary of compute-sanitizer")
    errors = any(number != "0" for _, number in summary)
    detail = "; ".join([*(text for text, _ in summary), outcome.detail])
    return replace(outcome, state=FAILED if errors else outcome.state, detail=detail)
