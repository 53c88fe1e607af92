"""The GPU report rehearsed without a GPU: programs on the processor, steps with tools that pretend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

import latentdem_ext as ext

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "devices": [{"name": "A GPU", "compute capability": "9.0", "memory_gb": 80.0}],
    "cuda": "13.0",
    "python": "3.11",
    "packages": {"torch": "2.13.0", "triton": "3.6.0"},
    "commit": "abc",
}


@pytest.fixture
def module(gpu_report):
    """A module of the report by its name."""
    return lambda name: import_module(f"gpu_report.{name}")


@pytest.fixture
def steps(module):
    return module("steps")


@pytest.fixture
def place(module, tmp_path):
    """Where steps work, as on a device of architecture 90."""
    place = module("plan").Place(tmp_path, tmp_path / "log.txt", tmp_path / "results.jsonl", "90", small=True)
    for file in (place.log, place.results):
        file.write_text("")
    return place


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Puts a program on the PATH: name and the shell commands that it runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def make(name: str, commands: str) -> None:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)

    return make


def rows(place) -> list[dict]:
    return [json.loads(line) for line in place.results.read_text().splitlines()]


# The command


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_message_says_so(tmp_path):
    command = [sys.executable, "-m", "tools.gpu_report", "--out", str(tmp_path / "results")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("The GPU report needs a CUDA GPU, but PyTorch ")
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_rehearsal_from_the_command_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tools.gpu_report",
        "--rehearse",
        "--skip",
        "tests",
        "--out",
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(path.name for path in (tmp_path / "rehearsal").iterdir()) == [
        *("environment.json", "log.txt", "report.md", "results.jsonl"),
    ]
    report = (tmp_path / "rehearsal" / "report.md").read_text()
    for title in ("Ceiling", "Time", "Whole run", "Profile"):
        assert f"## {title}" in report


@pytest.fixture
def command(module, monkeypatch, capsys):
    """Runs the command with steps that pretend: exit status, the names that ran with limits, output."""

    def run(outcomes: dict[str, object], *arguments: str):
        main, asked = module("__main__"), []

        def do(name, place, seconds):
            asked.append((name, seconds))
            return outcomes.get(name) or module("steps").Outcome(name, "passed")

        pretending = [module("plan").Step(step.name, step.seconds, do) for step in module("plan").STEPS]
        monkeypatch.setattr(main, "STEPS", pretending)
        monkeypatch.setattr(main, "device_name", lambda: "A GPU (80 GB)")
        monkeypatch.setattr(main, "architecture", lambda: "90")
        monkeypatch.setattr(main, "environment", lambda root: ENVIRONMENT)
        before = signal.getsignal(signal.SIGTERM)
        try:
            return main.main(list(arguments)), asked, capsys.readouterr().out
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


def test_all_steps_run_in_their_order_and_failures_are_reported(command, steps, tmp_path):
    failed = steps.Outcome("build", steps.FAILED, "exit status 1", "no | nvcc\n", 2.0)
    left_out = steps.Outcome("racecheck", steps.LEFT_OUT, "compute-sanitizer was not found")
    status, asked, output = command({"build": failed, "racecheck": left_out}, "--out", str(tmp_path))
    assert status == 1
    names = [
        "ceilings",
        "build",
        "comparisons",
        "native tests",
        "memcheck",
        "racecheck",
        "synccheck",
        "initcheck",
    ]
    names += ["times", "compiled times", "counters", "whole run", "tests"]
    assert [name for name, _ in asked] == names
    folder = tmp_path / "a-gpu-80-gb"
    assert f"{folder}/report.md: 1 of 13 steps failed" in output
    report = (folder / "report.md").read_text().splitlines()
    for line in (
        "# A GPU (80 GB)",
        "| build | FAILED | 2 | exit status 1 |",
        "| racecheck | left out | 0 | compute-sanitizer was not found |",
        "## build failed: exit status 1",
        "no | nvcc",
    ):
        assert line in report
    assert json.loads((folder / "environment.json").read_text()) == ENVIRONMENT


def test_limits_fit_in_eight_minutes_and_are_cut_to_what_is_left(module, command, tmp_path):
    assert sum(step.seconds for step in module("plan").STEPS) <= 480
    _, asked, _ = command({}, "--out", str(tmp_path), "--minutes", "0.5")
    assert asked[0][1] == 20
    assert all(seconds <= 30 for _, seconds in asked)


def test_steps_are_chosen(command, tmp_path):
    status, asked, _ = command(
        {}, "--out", str(tmp_path), "--only", "times", "build", "tests", "--skip", "tests"
    )
    assert status == 0
    assert [name for name, _ in asked] == ["build", "times"]


def test_report_is_written_after_every_step(module, command, steps, tmp_path, monkeypatch):
    written = []
    write = module("report").write
    monkeypatch.setattr(
        module("__main__"), "write", lambda *given: (write(*given), written.append(len(given[3])))
    )
    command({}, "--out", str(tmp_path), "--only", "ceilings", "build", "times")
    assert written == [1, 2, 3]


# A step


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


# The steps, with tools that pretend


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
    outcome = plan.test("tests", place, 60)
    assert outcome.detail == "3 passed in 1.00s"
    (_, build, cwd, environment), (_, tests, *_) = asked
    assert f"--build-lib={place.site}" in build
    assert cwd == place.folder
    assert environment["LATENTDEM_CUDA_ARCHS"] == "90"
    assert environment["PYTHONPATH"] == f"{place.site}:{ROOT / 'tools'}:{ROOT}:/mine"
    assert str(ROOT / "tests" / "latentdem_ext") in tests


# The programs, on the processor


@pytest.mark.parametrize("step", ["ceilings", "comparisons", "times"])
def test_programs_run_with_the_arguments_of_their_steps(module, place, monkeypatch, step):
    """In this process, which has imported what they need; the slow rehearsal runs the other programs too."""
    plan = module("plan")

    def run(name, command, log, seconds, cwd, environment):
        assert command[1] == "-m"
        status = import_module(command[2]).main(command[3:])
        return module("steps").Outcome(name, "FAILED" if status else "passed")

    monkeypatch.setattr(plan, "run", run)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    (chosen,) = (one for one in plan.STEPS if one.name == step)
    outcome = chosen.do(step, place, 60)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert outcome.state == "passed"
    found = rows(place)
    assert len(found) >= 3
    module("report").write(place.folder, "A GPU", ENVIRONMENT, [outcome], place.results)
    report = (place.folder / "report.md").read_text()
    for kind in {row["kind"] for row in found} - {"comparison"}:  # of which failures are shown
        assert f"## {kind.capitalize()}" in report


def test_ceilings_are_measured_before_anything_is_built():
    program = "import sys, gpu_report.ceilings; sys.exit('latentdem_ext' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools")}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


def test_three_operations_are_profiled(module):
    assert module("profiled").main(["--small"]) == 0


def test_every_operation_is_compared_and_timed(module):
    public = {name for name in module("cases").OPERATIONS if hasattr(ext, name)} - {"blur_adjoint"}
    compare, times = module("compare"), module("times")
    assert {c.operation for c in compare.cases("cpu", compare.IMAGES[:1], compare.MAPS[3:])} == public
    assert {c.operation for c in times.cases("cpu", times.SMALL)} == public


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
def test_rows_of_a_case(module, monkeypatch):
    times = module("times")
    case = next(case for case in times.cases("cpu", times.SMALL) if case.operation == "renoise")
    clock = iter([2000.0, 500.0])
    monkeypatch.setattr(times, "device_time", lambda functions: {"device_us": next(clock), "quartiles_us": 1.0})
    plain, native = times.backends(case)
    assert (plain["backend"], plain["chosen"]) == ("reference", False)
    assert (native["backend"], native["chosen"]) == ("cpp", True)
    # Three latents and three numbers a sample are read, one latent is written.
    assert native["gb_per_s"] == pytest.approx((4 * 512 + 3 * 2) * 4 / 500e-6 / 1e9)


def test_inputs_rotate_through_more_than_a_cache(module, monkeypatch):
    times, given = module("times"), []
    case = module("cases").Maker("cpu").norm(64, 32, torch.float32)
    monkeypatch.setattr(times, "ROTATED_BYTES", 5 * case.bytes)
    monkeypatch.setattr(
        times,
        "device_time",
        lambda functions: given.append(functions) or {"device_us": 1.0, "quartiles_us": 0.0},
    )
    times.backends(case)
    addresses = {function.args[0].arguments[0].data_ptr() for function in given[0]}
    assert len(addresses) == 5


def test_wrong_results_fail(module, monkeypatch, tmp_path, capsys):
    cases = module("cases")
    maker = cases.Maker("cpu")
    case = next(maker.photographs(1, 1, 16, 16, 3))
    run = cases.Case.run
    off = lambda self, variant: run(self, variant) * (1 if variant == "reference" else 1.001)  # noqa: E731
    monkeypatch.setattr(cases.Case, "run", off)
    assert module("rows").for_each([case], module("compare").compare, "comparison", tmp_path / "rows") == 1
    found = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [row["passed"] for row in found] == [row["backend"] == "reference" for row in found]
    assert "rows, " in capsys.readouterr().out


def test_a_limit_is_twice_the_error_of_the_reference_where_that_has_more(module):
    cases = module("cases")
    x = torch.full((1, 4, 8, 8), 1e4) + torch.rand(1, 4, 8, 8)  # the variance is what rounding leaves of it
    case = cases.case("group_norm_silu", x, 2, torch.ones(4), torch.zeros(4))
    expected = case.precise()
    own = cases.error_of(case.run("reference"), expected)
    assert case.allowed(expected) == max(1e-5, 2 * own) > 1e-5
    assert cases.error_of(torch.tensor([torch.nan, 1.0]), torch.ones(2)) == float("inf")


def test_device_time_replays_one_graph_of_all_functions(module, monkeypatch):
    """With stand-ins for the parts of PyTorch that need a GPU: `replay` takes 2 ms."""
    clocks, log = module("clocks"), []

    class Stream:
        def wait_stream(self, other):
            log.append("wait")

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = log.count("replay")

        def elapsed_time(self, other):
            return 2.0 * (other.at - self.at)

    class Graph:
        def replay(self):
            log.append("replay")

    class Context:
        def __init__(self, what):
            self.what = what

        def __enter__(self):
            log.append("enter")

        def __exit__(self, *_):
            log.append("exit")

    for name, value in {
        "is_available": lambda: True,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": Context,
        "synchronize": lambda: log.append("synchronize"),
        "CUDAGraph": Graph,
        "graph": Context,
        "Event": Event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    calls = []
    measured = clocks.device_time([lambda: calls.append(1), lambda: calls.append(2)])
    assert measured == {"device_us": 1000.0, "quartiles_us": 0.0}
    assert calls == [1, 2] * (clocks.WARMED_UP + 1)
    assert log.count("replay") == clocks.ROUNDS + 1
    assert clocks.host_time(lambda: None) < 1000


def test_lines_that_wait_for_the_device_are_counted(module, monkeypatch):
    pytest.importorskip("diffusers")
    import warnings

    monkeypatch.syspath_prepend(str(ROOT))
    whole_run, modes = module("whole_run"), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def function():
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    ((place, count),) = whole_run.waits(function).items()
    assert place.startswith("tests/tools/test_gpu_report.py:")
    assert count == 3
    assert modes == ["warn", "default"]


# The report


def test_dispatch_that_loses_is_named(module):
    report = module("report")
    case = {"kind": "time", "operation": "renoise", "shape": "2 x 4", "dtype": "float32"}

    def row(backend, device_us, chosen=False):
        return case | {"backend": backend, "device_us": device_us, "chosen": chosen}

    assert report.lost([row("reference", 9.0), row("triton", 5.0, True), row("compiled", 4.9)]) == []
    (sentence,) = report.lost([row("reference", 9.0), row("triton", 5.0, True), row("compiled", 3.0)])
    assert sentence == "- renoise, 2 x 4, float32: triton takes 5 us, compiled 3 us"


def test_report_of_nothing_has_no_tables(module, place):
    report = module("report")
    report.write(
        place.folder, "A GPU", ENVIRONMENT, [module("steps").Outcome("build", "passed")], place.results
    )
    text = (place.folder / "report.md").read_text()
    assert text.startswith("# A GPU\n\nCommit abc; compute capability 9.0, 80.0 GB; CUDA 13.0, PyTorch 2.13.0")
    assert "## " not in text


def test_environment_names_no_folder(module, monkeypatch):
    environment = module("environment")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("LATENTDEM_BACKEND", "cuda")
    monkeypatch.setenv("SECRET", "s")
    found = environment.environment(ROOT)
    assert found["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["variables"]["LATENTDEM_BACKEND"] == "cuda"
    assert "SECRET" not in found["variables"]
    assert found["packages"]["pytest-benchmark"]
    assert environment._output_of("no-such-program") == ""
