from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from latentdem.errors import UserError
from latentdem.evaluation.programs import Command
from latentdem.evaluation.runner import MethodError

PYTHON = sys.executable


def test_time_and_memory_are_those_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "import time\nx = bytearray(150_000_000)\nwhile time.process_time() < 0.3:\n    pass\n"
    )
    usage = Command(f"{PYTHON} {{input}}").run({"input": tmp_path / "work.py"}, tmp_path / "log")
    assert usage.seconds > 0.3
    assert usage.cpu_seconds > 0.25
    if usage.memory_mb is not None:  # Linux
        # This process is larger than the program, and its memory must not be in the figure.
        assert 150 < usage.memory_mb < 250


def test_paths_are_quoted_and_variables_left_to_the_shell(tmp_path: Path) -> None:
    source = tmp_path / "it's a; name"
    source.write_text("text")
    command = Command("cd / && WHAT=word && cat {input} > {output} && echo ${WHAT} >> {output}")
    assert command.placeholders == {"input", "output"}
    command.run({"input": source, "output": tmp_path / "out file"}, tmp_path / "log")
    assert (tmp_path / "out file").read_text() == "textword\n"


def test_failing_programs_are_quoted(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"ended with exit status 3, after 'CUDA out of memory'\."):
        Command("echo start; echo CUDA out of memory >&2; echo; exit 3").run({}, tmp_path / "log")
    with pytest.raises(MethodError, match="ended with exit status 127"):
        Command("no-such-program-here").run({}, tmp_path / "log")


def test_time_limit_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    command = Command(f"sleep 60 & echo $! > {child}; echo working; sleep 60", time_limit=2.0)
    with pytest.raises(MethodError, match=r"stopped at the time limit of 2 s, after 'working'"):
        command.run({}, tmp_path / "log")
    status = Path("/proc") / child.read_text().strip() / "stat"
    deadline = time.monotonic() + 30.0  # the kernel ends it when it next runs
    with suppress(FileNotFoundError, ProcessLookupError):
        while status.read_text().rpartition(")")[2].split()[0] not in "ZX":  # ended, perhaps not collected yet
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_placeholders_are_checked() -> None:
    allowed, needed = ("input", "output"), (("input",), ("output",))
    Command("a {input} {output}").check(allowed, needed)
    with pytest.raises(UserError, match=r"no placeholder {outptu}; there are {input}, {output}\."):
        Command("a {input} {outptu}").check(allowed, needed)
    with pytest.raises(UserError, match=r"'a {input}' does not say where {output} goes"):
        Command("a {input}").check(allowed, needed)
