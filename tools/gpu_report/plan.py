"""The steps of the report, in their order and with their limits."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import counters
from .steps import FAILED, LEFT_OUT, Outcome, count_tests, read_rows, read_sanitizer, run

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable


@dataclass(frozen=True)
class Place:
    """Where the steps work.

    `folder` is temporary and the working directory: it has no source folder of the repository that Python would
    import instead of the build. `small` asks for a rehearsal.
    """

    folder: Path
    log: Path
    results: Path
    architecture: str  # such as "90"
    small: bool = False

    @property
    def site(self) -> Path:
        """The folder that the packages are built into."""
        return self.folder / "site"

    @property
    def native(self) -> Path:
        """The program of the native tests."""
        return self.folder / "native_tests"

    def run(self, name: str, command: list[str], seconds: float, **environment: str) -> Outcome:
        """Runs a command that finds the built packages, then those of the repository."""
        paths = [self.site, ROOT / "tools", ROOT]
        before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        environment["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *before])
        environment["PYTHONUNBUFFERED"] = "1"
        if self.small:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return run(name, command, self.log, seconds, self.folder, environment)


def program(module: str, *options: str) -> Callable[[str, Place, float], Outcome]:
    """The step that runs a program of this package, whose rows go to the results."""
    return partial(_program, module=module, options=options)


def _program(name: str, place: Place, seconds: float, module: str, options: tuple[str, ...]) -> Outcome:
    command = [PYTHON, "-m", f"gpu_report.{module}", str(place.results), *options]
    return read_rows(place.run(name, [*command, *(["--small"] if place.small else [])], seconds))


def build(name: str, place: Place, seconds: float) -> Outcome:
    """The packages with the CUDA module, for this architecture alone."""
    place.site.mkdir(exist_ok=True)
    command = [PYTHON, str(ROOT / "setup.py"), "egg_info", f"--egg-base={place.site}"]
    command += ["build", f"--build-base={place.folder / 'build'}", f"--build-lib={place.site}"]
    shell = ["sh", "-c", 'cd "$0" && exec "$@"', str(ROOT), *command]  # setup.py works in the root
    return place.run(name, shell, seconds, LATENTDEM_CUDA="ON", LATENTDEM_CUDA_ARCHS=place.architecture)


def native_tests(name: str, place: Place, seconds: float) -> Outcome:
    """The tests of the kernels alone: built, and run once without a tool."""
    command = [PYTHON, "-m", "gpu_report.native", f"sm_{place.architecture}", str(place.native)]
    return place.run(name, ["sh", "-c", '"$@" && exec "$0"', str(place.native), *command], seconds)


def sanitize(name: str, place: Place, seconds: float) -> Outcome:
    """The native tests under the tool of compute-sanitizer that the step is named after."""
    if not place.native.exists():
        return Outcome(name, LEFT_OUT, "the native tests were not built")
    command = ["compute-sanitizer", "--tool", name, "--error-exitcode", "9", str(place.native)]
    return read_sanitizer(
        place.run(name, [*command, *(["--unfilled"] if name == "initcheck" else [])], seconds)
    )


def read_counters(name: str, place: Place, seconds: float) -> Outcome:
    """Counters of three operations, if Nsight Compute is there."""
    command = [*counters.COMMAND, PYTHON, "-m", "gpu_report.profiled", *(["--small"] if place.small else [])]
    outcome = place.run(name, command, seconds)
    rows: list[dict[str, Any]] = counters.rows(outcome.output)
    with place.results.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    if outcome.state == LEFT_OUT or rows:
        return outcome
    return Outcome(name, FAILED, outcome.detail or "there are no counters", outcome.output, outcome.seconds)


def whole_run(name: str, place: Place, seconds: float) -> Outcome:
    """The program of whole runs that the step is named after, if diffusers is there."""
    if not find_spec("diffusers"):
        return Outcome(name, LEFT_OUT, "diffusers is not installed")
    return program(name.replace(" ", "_"))(name, place, seconds)


def test(name: str, place: Place, seconds: float) -> Outcome:
    """The tests that need a GPU; those of the solver where diffusers is there. A rehearsal collects them."""
    folders = ["tests/latentdem_ext", "tests/kernels"]
    folders += ["tests/latentdem", "tests/tools"] if find_spec("diffusers") else []
    command = [PYTHON, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += [str(ROOT / folder) for folder in folders if (ROOT / folder).exists()]
    command += ["-m", "gpu", "-v", "-p", "no:cacheprovider"]
    if place.small:
        return place.run(name, [*command, "--collect-only", "-q"], seconds)
    command += ["-n", "8"] if find_spec("xdist") else []
    return count_tests(place.run(name, command, seconds))


@dataclass(frozen=True)
class Step:
    """A step, its limit in seconds, and what it does: (name, place, seconds) -> outcome. It never raises."""

    name: str
    seconds: float
    do: Callable[[str, Place, float], Outcome]


# 480 seconds together. What others need comes first, then what a wrong result would make worthless, then times.
STEPS = (
    Step("ceilings", 20, program("ceilings")),
    Step("build", 40, build),
    Step("comparisons", 50, program("compare")),
    Step("native tests", 20, native_tests),
    *(Step(tool, 12, sanitize) for tool in ("memcheck", "racecheck", "synccheck", "initcheck")),
    Step("times", 68, program("times")),
    Step("compiled times", 44, program("times", "--compiled")),
    Step("counters", 30, read_counters),
    Step("whole run", 70, whole_run),
    Step("blind", 35, whole_run),
    Step("tests", 55, test),
)
NEEDS_DEVICE = ("build", "native tests")  # a rehearsal has none to build for, and runs what is installed
