"""The steps of the report, in their order."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from .environment import device_name, environment
from .report import slug, write
from .steps import LEFT_OUT, Outcome, count_tests, read_sanitizer, run

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
# `python -m pytest` would import latentdem_ext from the root, where it is not built.
PYTEST = [PYTHON, "-c", "import sys; del sys.path[0]; import pytest; sys.exit(pytest.main(sys.argv[1:]))"]
TESTS = ("tests/latentdem_ext", "tests/kernels")  # with a CUDA device; the solver's tests need diffusers
CUDA_TESTS = "tests/latentdem_ext/test_cuda.py"
STATES = """
import latentdem_ext
states = latentdem_ext.backends()
for name, state in states.items():
    print(f"{name}: {state}")
raise SystemExit(not (states["cuda"].available and states["triton"].available))
"""


def build(folder: Path, logs: Path, seconds: float) -> Outcome:
    """The packages, with the CUDA module, as a folder to import them from."""
    site = folder / "site"
    site.mkdir()
    command = [
        PYTHON,
        "setup.py",
        "egg_info",
        f"--egg-base={site}",
        "build",
        f"--build-base={folder / 'build'}",
    ]
    command += [f"--build-lib={site}"]
    return run("build", command, logs, seconds, cwd=ROOT, environment={"LATENTDEM_CUDA": "ON"})


def test(logs: Path, seconds: float) -> Outcome:
    """The tests that need a GPU."""
    folders = [folder for folder in TESTS if (ROOT / folder).exists()]
    folders += ["tests/latentdem", "tests/tools"] if find_spec("diffusers") else []
    command = [*PYTEST, *folders, "-m", "gpu", "-v", "-p", "no:cacheprovider"]
    command += ["-n", "4"] if find_spec("xdist") else []
    return count_tests(run("tests", command, logs, seconds, cwd=ROOT))


def sanitize(tool: str, logs: Path, seconds: float) -> Outcome:
    """One tool of compute-sanitizer, on the tests of the CUDA module.

    Every allocation has to reach the driver, or what lies beyond a tensor would still be inside a block of
    PyTorch's; then no graph can be captured.
    """
    command = ["compute-sanitizer", "--tool", tool, "--kernel-name", "kns=latentdem", "--error-exitcode", "9"]
    command += [*PYTEST, CUDA_TESTS, "-m", "gpu", "-k", "not graph", "-p", "no:cacheprovider"]
    caching = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return read_sanitizer(run(tool, command, logs, seconds, cwd=ROOT, environment=caching))


def benchmark(folder: Path, out: Path, logs: Path, seconds: float) -> list[Outcome]:
    """The suites of benchmarks/, where what they need is there."""
    if not (find_spec("pytest_benchmark") and find_spec("matplotlib")):
        return [Outcome("benchmarks", LEFT_OUT, "pytest-benchmark or matplotlib is not installed")]
    found = folder / "benchmarks.json"
    command = [*PYTEST, "benchmarks", f"--benchmark-json={found}", "-p", "no:cacheprovider"]
    suites = count_tests(run("benchmarks", command, logs, seconds, cwd=ROOT))
    if not found.exists():
        return [suites]
    command = [PYTHON, "-m", "benchmarks.report", str(found), "--out", str(out)]
    return [suites, run("benchmark tables", command, logs, seconds, cwd=ROOT)]


def found_by(variable: str) -> list[str]:
    """The folders that it names."""
    return [folder for folder in os.environ.get(variable, "").split(os.pathsep) if folder]


def main(arguments: list[str] | None = None) -> int:
    """Run every step, write the report; 0 where nothing failed."""
    parser = argparse.ArgumentParser(prog="gpu_report", description="Build, test and measure on a GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="a folder per device")
    parser.add_argument("--minutes", type=float, default=20.0, help="the longest that everything may take")
    options = parser.parse_args(arguments)
    out, end = options.out.resolve(), time.monotonic() + 60 * options.minutes

    def left() -> float:
        return end - time.monotonic()

    name = device_name()  # ends the program where there is no GPU
    target = out / slug(name)
    logs = target / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Python looks here first: not at the sources, which hold no compiled module.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "site"), *found_by("PYTHONPATH")])
        measurements = folder / "measurements.json"
        measure = [PYTHON, str(ROOT / "tools" / "gpu_report" / "measure.py"), str(measurements)]
        outcomes = [
            build(folder, logs, left()),
            run("backends", [PYTHON, "-c", STATES], logs, left(), cwd=folder),
            test(logs, left()),
            run("measurements", measure, logs, left(), cwd=folder),
            *benchmark(folder, out, logs, left()),
            *(sanitize(tool, logs, left()) for tool in ("memcheck", "racecheck", "synccheck")),
        ]
        write(target, environment(ROOT), outcomes, measurements)
    failures = [outcome for outcome in outcomes if outcome.failed]
    print(f"{target}: {len(failures)} of {len(outcomes)} steps failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
