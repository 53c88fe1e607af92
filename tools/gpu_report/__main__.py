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
    """Builds the packages with the CUDA module into a folder to import them from."""
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
    """Runs one tool of compute-sanitizer on the tests of the CUDA module.

    Every allocation has to reach the driver, because memory beyond a tensor would else lie inside a block of
    the caching allocator. Graphs cannot be captured then.
    """
    command = ["compute-sanitizer", "--tool", tool, "--kernel-name", "kns=latentdem", "--error-exitcode", "9"]
    command += [*PYTEST, CUDA_TESTS, "-m", "gpu", "-k", "not graph", "-p", "no:cacheprovider"]
    caching = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return read_sanitizer(run(tool, command, logs, seconds, cwd=ROOT, environment=caching))


def benchmark(folder: Path, out: Path, logs: Path, seconds: float) -> list[Outcome]:
    """Runs the suites of benchmarks/, where the packages they need are installed."""
    if not (find_spec("pytest_benchmark") and find_spec("matplotlib")):
        return [Outcome("benchmarks", LEFT_OUT, "pytest-benchmark or matplotlib is not installed")]
    results = folder / "benchmarks.json"
    command = [*PYTEST, "benchmarks", f"--benchmark-json={results}", "-p", "no:cacheprovider"]
    suites = count_tests(run("benchmarks", command, logs, seconds, cwd=ROOT))
    if not results.exists():
        return [suites]
    command = [PYTHON, "-m", "benchmarks.report", str(results), "--out", str(out)]
    return [suites, run("benchmark tables", command, logs, seconds, cwd=ROOT)]


def folders_in(variable: str) -> list[str]:
    """The folders in an environment variable such as PATH."""
    return [folder for folder in os.environ.get(variable, "").split(os.pathsep) if folder]


def main(arguments: list[str] | None = None) -> int:
    """Runs every step and writes the report; returns 0 where nothing failed, else 1."""
    parser = argparse.ArgumentParser(prog="gpu_report", description="Build, test and measure on a GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="a folder per device")
    parser.add_argument("--minutes", type=float, default=20.0, help="time limit of all steps together")
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
        # Python looks here first instead of in the sources, which have no compiled module.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "site"), *folders_in("PYTHONPATH")])
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
