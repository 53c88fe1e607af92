"""One step of the GPU report, and every step with tools that pretend."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def rows(place) -> list[dict]:
    return [json.loads(line) for line in place.results.read_text().splitlines()]


def python(steps, tmp_path, program: str, seconds: float = 60, name: str = "step"):
    log = tmp_path / "log.txt"
    return steps.run(name, [sys.executable, "-c", program], log, seconds, tmp_path, {"NAME": "x"})


def test_a_step_never_raises_and_keeps_its_output(steps, tmp_path):
    outcome = python(steps, tmp_path, "import os; print(os.environ['NAME'])", name="a step")
    assert (outcome.state, outcome.detail, outcome.output) == (steps.PASSED, "", "x\n")
    outcome = python(steps, tmp_path, "import sys; print('so', file=sys.stderr); sys.exit(3)")
    assert (outcome.state, outcome.detail, outcome.output) == (steps.FAILED, "exit status 3", "so\n")
    log = (tmp_path / "log.txt").read_text()
    assert "==== a step: " in log
    assert log.endswith("so\n")
    outcome = steps.run("tool", ["no-such-tool"], tmp_path / "log.txt", 1, tmp_path)
    assert (outcome.state, outcome.detail) == (steps.LEFT_OUT, "no-such-tool was not found")
    assert not outcome.failed
    outcome = python(steps, tmp_path, "", seconds=0)
    assert (outcome.state, outcome.detail) == (steps.LEFT_OUT, "no time was left")


def test_the_limit_ends_a_step_with_everything_it_has_started(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "GRACE", 0.5)
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    program = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print(child.pid, flush=True)
child.wait()
"""
    outcome = python(steps, tmp_path, program, seconds=1)
    assert (outcome.state, outcome.detail) == (steps.FAILED, "stopped after 1 s")
    number = int(outcome.output.split()[0])
    for _ in range(50):
        if not alive(number):
            break
        time.sleep(0.1)
    assert not alive(number)


def alive(number: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about yet does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("output", "failed", "detail"),
    [
        ("== 12 passed, 3 skipped in 4.56s ==", False, "12 passed, 3 skipped in 4.56s"),
        ("12 passed in 75.10s (0:01:15)", False, "12 passed in 75.10s (0:01:15)"),
        (
            "=== 3 skipped, 40 deselected in 1.00s ===",
            True,
            "no test passed: 3 skipped, 40 deselected in 1.00s",
        ),
        ("ImportError", True, "no summary of pytest"),
    ],
)
def test_summary_of_pytest(steps, output, failed, detail):
    outcome = steps.count_tests(steps.Outcome("tests", steps.PASSED, output=f"...\n{output}\n"))
    assert (outcome.failed, outcome.detail) == (failed, detail)


def test_failed_tests_stay_failed(steps):
    output = "FAILED a.py::b\n1 failed, 12 passed in 1.00s\n"
    outcome = steps.count_tests(steps.Outcome("tests", steps.FAILED, "exit status 1", output))
    assert (outcome.failed, outcome.detail) == (True, "1 failed, 12 passed in 1.00s; exit status 1")


@pytest.mark.parametrize(
    ("summary", "failed"),
    [
        ("========= ERROR SUMMARY: 0 errors", False),
        ("========= ERROR SUMMARY: 2 errors", True),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", False),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)", True),
        ("========= Error: Device not supported", True),
    ],
)
def test_summary_of_the_sanitizer(steps, summary, failed):
    output = f"=========\n0 failures\n{summary}\n"
    outcome = steps.read_sanitizer(steps.Outcome("memcheck", steps.PASSED, output=output))
    assert outcome.failed == failed
    assert "0 failures" in outcome.detail
    assert summary.split(" ", 1)[1] in outcome.detail or "no summary of compute-sanitizer" in outcome.detail


def test_a_sanitizer_that_saw_only_a_part_has_failed(steps):
    output = "========= ERROR SUMMARY: 0 errors\n"
    outcome = steps.read_sanitizer(steps.Outcome("memcheck", steps.PASSED, output=output))
    assert (outcome.failed, outcome.detail) == (True, "ERROR SUMMARY: 0 errors; the kernels were not all run")


def test_native_tests_are_built_run_and_sanitized(module, place, pretend):
    plan = module("plan")
    outcome = plan.sanitize("memcheck", place, 60)
    assert (outcome.state, outcome.detail) == ("left out", "the native tests were not built")
    # Writes a program that pretends to have run, as its last argument asks.
    pretend("nvcc", 'for last; do :; done; printf "#!/bin/sh\\necho 0 failures\\n" > "$last"; chmod +x "$last"')
    outcome = plan.native_tests("native tests", place, 60)
    assert outcome.state == "passed", outcome.output
    assert outcome.output == "0 failures\n"
    pretend("compute-sanitizer", 'echo "$@"; shift 4; "$@"; echo "========= ERROR SUMMARY: 0 errors"')
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        outcome = plan.sanitize(tool, place, 60)
        assert (outcome.state, outcome.detail) == ("passed", "ERROR SUMMARY: 0 errors; 0 failures"), (
            outcome.output
        )
        assert outcome.output.startswith(f"--tool {tool} --error-exitcode 9 {place.native}")
        assert ("--unfilled" in outcome.output) == (tool == "initcheck")


def test_a_compiler_that_fails_leaves_no_native_tests(module, place, pretend):
    pretend("nvcc", "echo broken; exit 2")
    outcome = module("plan").native_tests("native tests", place, 60)
    assert (outcome.state, outcome.detail) == ("FAILED", "exit status 1")
    assert "broken" in outcome.output
    assert not place.native.exists()


NCU = """\
while [ "$1" != -m ]; do echo "asked for $1"; shift; done
[ "$2 $3" = "gpu_report.profiled --small" ] || exit 1
echo "==PROF== Connected to process 1"
echo '"ID","Process ID","Kernel Name","Block Size","Grid Size","gpu__time_duration.sum","dram__bytes_read.sum"'
echo '"","","","","","us","Mbyte"'
echo '"0","1","residual_kernel(Blur, int)","(256, 1, 1)","(8, 1024, 1)","21.5","50.3"'
echo "==PROF== Disconnected"
"""


def test_counters_are_read(module, place, pretend):
    plan = module("plan")
    pretend("ncu", NCU)
    outcome = plan.read_counters("counters", place, 60)
    assert outcome.state == "passed", outcome.output
    assert "asked for gpu__time_duration.sum,dram__bytes_read.sum" in outcome.output
    (row,) = rows(place)
    assert (row["kind"], row["kernel"]) == ("counters", "residual_kernel(Blur, int)")
    assert (row["grid"], row["us"], row["read"], row["registers"]) == (
        "(8, 1024, 1)",
        "21.5 us",
        "50.3 Mbyte",
        "-",
    )
    pretend("ncu", "echo The user does not have permission")
    outcome = plan.read_counters("counters", place, 60)
    assert (outcome.state, outcome.detail) == ("FAILED", "there are no counters")


def test_build_and_tests_get_the_built_packages(module, place, monkeypatch):
    plan, asked = module("plan"), []

    def run(name, command, log, seconds, cwd, environment):
        asked.append((name, command, cwd, environment))
        return module("steps").Outcome(name, "passed", output="3 passed in 1.00s\n")

    monkeypatch.setattr(plan, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    plan.build("build", place, 60)
    outcome = plan.test("tests", replace(place, small=False), 60)
    assert outcome.detail == "3 passed in 1.00s"
    (_, build, cwd, environment), (_, tests, *_) = asked
    assert f"--build-lib={place.site}" in build
    assert cwd == place.folder
    assert environment["LATENTDEM_CUDA_ARCHS"] == "90"
    assert environment["PYTHONPATH"] == f"{place.site}:{ROOT / 'tools'}:{ROOT}:/mine"
    assert str(ROOT / "tests" / "latentdem_ext") in tests


def test_a_rehearsal_collects_the_tests_that_need_a_device(module, place, monkeypatch):
    plan, asked = module("plan"), []
    outcome = module("steps").Outcome("tests", "passed", output="177/3950 tests collected\n")
    monkeypatch.setattr(plan, "run", lambda name, command, *_: (asked.append(command), outcome)[1])
    assert plan.test("tests", place, 60) is outcome
    assert "--collect-only" in asked[0]
    assert "-n" not in asked[0]
