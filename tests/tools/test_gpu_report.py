"""The parts of the GPU report that need no GPU, and its whole course with commands that only pretend."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import latentdem_ext as ext

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def steps(gpu_report):
    return import_module("gpu_report.steps")


@pytest.fixture
def measure(gpu_report):
    return import_module("gpu_report.measure")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_message_says_so(tmp_path):
    command = [sys.executable, "-m", "tools.gpu_report", "--out", str(tmp_path / "results")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("The GPU report needs a CUDA GPU, but PyTorch ")
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def python(steps, tmp_path, program: str, seconds: float = 60, name: str = "step"):
    return steps.run(name, [sys.executable, "-c", program], tmp_path, seconds, tmp_path, {"NAME": "x"})


def test_a_step_never_raises_and_keeps_its_output(steps, tmp_path):
    outcome = python(steps, tmp_path, "import os; print(os.environ['NAME'])", name="a step")
    assert (outcome.state, outcome.detail, outcome.output) == (steps.PASSED, "", "x\n")
    assert (tmp_path / "a_step.log").read_text() == "x\n"
    outcome = python(steps, tmp_path, "import sys; print('so', file=sys.stderr); sys.exit(3)")
    assert (outcome.state, outcome.detail, outcome.output) == (steps.FAILED, "exit status 3", "so\n")
    outcome = python(steps, tmp_path, "print('begun', flush=True); import time; time.sleep(60)", seconds=1)
    assert (outcome.state, outcome.detail, outcome.output) == (steps.FAILED, "stopped after 1 s", "begun\n")
    outcome = steps.run("tool", ["no-such-tool"], tmp_path, 1, tmp_path)
    assert (outcome.state, outcome.detail) == (steps.LEFT_OUT, "no-such-tool was not found")
    assert not outcome.failed
    outcome = python(steps, tmp_path, "", seconds=0)
    assert (outcome.state, outcome.detail) == (steps.LEFT_OUT, "no time was left")


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
    output = f"=========\n===== 5 passed in 1.00s =====\n{summary}\n"
    outcome = steps.read_sanitizer(steps.Outcome("memcheck", steps.PASSED, output=output))
    assert outcome.failed == failed
    assert "5 passed" in outcome.detail
    assert summary.split(" ", 1)[1] in outcome.detail or "no summary of compute-sanitizer" in outcome.detail


SMALL = {"image": 40, "kernel": 9, "latent": 8, "map": 6, "channels": 8, "batches": (2,)}
CLOCK = {"median_ms": 2.0, "quartiles_ms": 0.1, "rounds": 5, "peak_mb": 1.5}


def test_every_case_is_measured_and_correct(measure):
    """Here on the backend that the CPU has; a case that falls back to the reference is an error."""
    operations = set()
    for case in measure.cases("cpu", measure.Sizes(**SMALL)):
        operations.add(case.operation)
        result, expected = case.public(), case.precise()
        assert measure.error_of(result, expected) < (0.02 if case.dtype in measure.HALF else 1e-5)
        with (
            ext.use_backend("reference"),
            pytest.raises(RuntimeError, match=f"{case.operation} ran on its ref"),
        ):
            measure.measure(case, lambda function: dict(CLOCK), compiled=False)
    assert operations == {
        "blur_fidelity",
        "blur_proximal",
        "dps_step",
        "group_norm_silu",
        "hqs_kernel_update",
        "hqs_prepare",
        "renoise",
        "upsample_conv",
    }


@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
def test_rows_of_a_case(measure):
    case = next(case for case in measure.cases("cpu", measure.Sizes(**SMALL)) if case.operation == "renoise")
    times = iter([2.0, 0.5])
    plain, native = measure.measure(case, lambda function: CLOCK | {"median_ms": next(times)}, compiled=False)
    assert (plain["backend"], native["backend"]) == ("reference", "cpp")
    assert (plain["to_reference"], native["to_reference"]) == (1.0, 4.0)
    assert native["shape"] == "2 x 4 x 8 x 8"
    # Three latents and three numbers a sample are read, one latent is written.
    assert native["gb_per_s"] == pytest.approx((4 * 512 + 3 * 2) * 4 / 0.5e-3 / 1e9)


def test_wrong_results_are_not_measured(measure, monkeypatch):
    case = next(measure.cases("cpu", measure.Sizes(**SMALL)))
    found = tuple(1.001 * value for value in case.public())
    monkeypatch.setattr(measure.Case, "public", lambda self: found)
    with pytest.raises(RuntimeError, match=r"blur_fidelity on .* is off by 1\.0"):
        measure.measure(case, lambda function: dict(CLOCK), compiled=False)


ENVIRONMENT = {
    "devices": [{"name": "A GPU", "compute capability": "9.0", "memory_gb": 80.0}],
    "cuda": "13.0",
    "python": "3.11",
    "packages": {"torch": "2.13.0", "triton": "3.6.0"},
}


def test_all_steps_run_and_failures_are_reported(gpu_report, steps, tmp_path, monkeypatch, capsys):
    main = import_module("gpu_report.__main__")
    commands = []

    def pretend(name, command, logs, seconds, cwd, environment=None):
        commands.append((name, environment or {}))
        if name == "build":
            return steps.Outcome(name, steps.FAILED, "exit status 1", "no | nvcc\n", 2.0)
        if name == "measurements":
            row = CLOCK | {"operation": "renoise", "shape": "2 x 4", "dtype": "float32", "backend": "cuda"}
            row |= {"to_reference": 2.0, "gb_per_s": 1.0, "of_copy": 0.5, "error": 1e-7, "allowed": 1e-5}
            Path(command[-1]).write_text(json.dumps({"copy_gb_per_s": 2.0, "rows": [row]}))
        if name == "racecheck":
            return steps.Outcome(name, steps.LEFT_OUT, "compute-sanitizer was not found")
        return steps.Outcome(name, steps.PASSED, output="3 passed in 1.00s\n== ERROR SUMMARY: 0 errors\n")

    monkeypatch.setattr(main, "run", pretend)
    monkeypatch.setattr(main, "device_name", lambda: "A GPU (80 GB)")
    monkeypatch.setattr(main, "environment", lambda root: ENVIRONMENT)
    monkeypatch.setenv("PYTHONPATH", "")
    assert main.main(["--out", str(tmp_path)]) == 1
    tried = [name for name, _ in commands]
    assert tried[:4] == ["build", "backends", "tests", "measurements"]
    assert tried[-3:] == ["memcheck", "racecheck", "synccheck"]
    assert dict(commands)["build"] == {"LATENTDEM_CUDA": "ON"}
    folder = tmp_path / "a-gpu-80-gb"
    assert f"{folder}: 1 of" in capsys.readouterr().out
    report = (folder / "report.md").read_text()
    for line in (
        "# A GPU",
        "| build | FAILED | 2 | exit status 1 |",
        "| racecheck | left out | 0 | compute-sanitizer was not found |",
        "## build failed: exit status 1",
        "A copy: 2 GB/s.",
        "| renoise | 2 x 4 | float32 | cuda | 2 | 0.1 | 5 | 2 | 1 | 0.5 | 1.5 | 1e-07 | 1e-05 |",
    ):
        assert line in report.splitlines()
    (row,) = csv.DictReader((folder / "measurements.csv").open())
    assert row["of_copy"] == "0.5"
    assert json.loads((folder / "environment.json").read_text()) == ENVIRONMENT


def test_report_without_measurements(gpu_report, steps, tmp_path):
    report = import_module("gpu_report.report")
    report.write(tmp_path, ENVIRONMENT, [steps.Outcome("build", steps.PASSED)], tmp_path / "none.json")
    assert "There are none." in (tmp_path / "report.md").read_text()
    assert (tmp_path / "measurements.csv").read_text().splitlines() == [",".join(report.COLUMNS)]


def test_environment_names_no_folder(gpu_report, monkeypatch):
    environment = import_module("gpu_report.environment")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("LATENTDEM_BACKEND", "cuda")
    monkeypatch.setenv("SECRET", "s")
    found = environment.environment(ROOT)
    assert found["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert found["variables"]["LATENTDEM_BACKEND"] == "cuda"
    assert "SECRET" not in found["variables"]
    assert found["packages"]["pytest-benchmark"]
    assert environment._output_of("no-such-program") == ""
