"""The command of the GPU report with steps that pretend, and the report that it writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]


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
    command = [sys.executable, "-m", "tools.gpu_report", "--rehearse", "--skip", "tests"]
    command += ["--minutes", "60", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(path.name for path in (tmp_path / "rehearsal").iterdir()) == [
        *("environment.json", "log.txt", "report.md", "results.jsonl"),
    ]
    report = (tmp_path / "rehearsal" / "report.md").read_text()
    for title in ("Ceiling", "Time", "Whole run", "Blind", "Profile"):
        assert f"## {title}" in report


@pytest.fixture
def command(module, monkeypatch, capsys, described):
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
        monkeypatch.setattr(main, "environment", lambda root: described)
        before = signal.getsignal(signal.SIGTERM)
        try:
            return main.main(list(arguments)), asked, capsys.readouterr().out
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


def test_all_steps_run_in_their_order_and_failures_are_reported(command, steps, tmp_path, described):
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
    names += ["times", "compiled times", "counters", "whole run", "blind", "tests"]
    assert [name for name, _ in asked] == names
    folder = tmp_path / "a-gpu-80-gb"
    assert f"{folder}/report.md: 1 of 14 steps failed" in output
    report = (folder / "report.md").read_text().splitlines()
    for line in (
        "# A GPU (80 GB)",
        "| build | FAILED | 2 | exit status 1 |",
        "| racecheck | left out | 0 | compute-sanitizer was not found |",
        "## build failed: exit status 1",
        "no | nvcc",
    ):
        assert line in report
    assert json.loads((folder / "environment.json").read_text()) == described


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


def test_dispatch_that_loses_is_named(module):
    report = module("report")
    case = {"kind": "time", "operation": "renoise", "shape": "2 x 4", "dtype": "float32"}

    def row(backend, device_us, chosen=False):
        return case | {"backend": backend, "device_us": device_us, "chosen": chosen}

    assert report.lost([row("reference", 9.0), row("triton", 5.0, True), row("compiled", 4.9)]) == []
    (sentence,) = report.lost([row("reference", 9.0), row("triton", 5.0, True), row("compiled", 3.0)])
    assert sentence == "- renoise, 2 x 4, float32: triton takes 5 us, compiled 3 us"


def test_report_of_nothing_has_no_tables(module, place, described):
    report = module("report")
    report.write(place.folder, "A GPU", described, [module("steps").Outcome("build", "passed")], place.results)
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
