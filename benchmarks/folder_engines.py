"""What sharing a folder costs: many small photographs with a stand-in for the restoration, by each engine.

    python -m benchmarks.folder_engines --photographs 10000 --milliseconds 0

Every photograph is read and written by the code of `latentdem deblur`; the stand-in waits and gives back its
input. Prints for each engine the photographs per second, the start of its processes aside, and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

from latentdem.cli._cluster import RayEngine
from latentdem.cli._outputs import Existing
from latentdem.cli._run import run
from latentdem.cli._task import Outcome, Outputs
from latentdem.io.codecs import encode


class Waiting:
    """A `Task` that takes a time of its own and gives the photographs back."""

    ending = "_deblurred"
    inputs: Sequence[Path] = ()
    kept = None

    def __init__(self, seconds: float, batch_size: int = 1) -> None:
        self.seconds, self.batch_size = seconds, batch_size

    def prepare(self, count: int) -> None:
        torch.set_num_threads(1)

    def group(self, source: Any) -> Any:
        return source.pixels.shape

    def restore(self, sources: list[Any], group: Any, progress: Any) -> list[Outcome]:
        time.sleep(self.seconds)
        report = {"residual": 0.01, "seconds": {"total": self.seconds}}
        return [Outcome(source.pixels, source, report, [], {}) for source in sources]

    def complaint(self, unexplained: Any, several: bool) -> tuple[str, int]:
        raise AssertionError("everything is explained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photographs", type=int, default=1000)
    parser.add_argument("--milliseconds", type=float, default=0.0, help="of the stand-in for each photograph")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--engines", default="plain,ray")
    parser.add_argument("--run", nargs=3, metavar=("ENGINE", "IN", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        restore(*options.run, options.milliseconds / 1000)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "photos", options.photographs)
        for engine in options.engines.split(","):
            print(json.dumps(measure(engine, folder, options)), flush=True)


def make_photographs(folder: Path, count: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    sizes = [(24, 32), (32, 24), (32, 32)]
    for i in range(count):
        encode(folder / f"{i:06}.png", random.integers(0, 256, (*sizes[i % len(sizes)], 3), np.uint8))


def restore(engine: str, photos: str, out: str, seconds: float) -> None:
    """One process of a run."""
    on_ray = RayEngine(None, 1, "cpu", Path(out) / "report") if engine == "ray" else None
    run([Path(photos)], Waiting(seconds), Outputs(out, None, Existing(), None, None), on_ray)


def measure(engine: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What an engine takes; the rate is from the first result to the last, so that starting counts for none."""
    out = folder / engine
    command = [sys.executable, "-m", "benchmarks.folder_engines", "--milliseconds", str(options.milliseconds)]
    command += ["--run", engine, str(folder / "photos"), str(out)]
    count = options.processes if engine == "plain" else 1
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    if count > 1:
        environment["WORLD_SIZE"] = str(count)
    processes = [
        subprocess.Popen(command, env=environment | ({"RANK": str(i)} if count > 1 else {}))
        for i in range(count)
    ]
    memory = Memory([process.pid for process in processes])
    statuses = [process.wait() for process in processes]
    whole = time.perf_counter() - started
    written = sorted(path.stat().st_mtime for path in out.glob("*.png"))
    assert not any(statuses), statuses
    assert len(written) == options.photographs
    rate = (len(written) - 1) / (written[-1] - written[0])
    return {
        "engine": engine,
        "photographs": len(written),
        "seconds": round(whole, 1),
        "photographs_per_second": round(rate, 2),
        **memory.end(),
    }


class Memory(threading.Thread):
    """The peaks of the resident memory of processes: the first ones, and those that they started."""

    def __init__(self, first: list[int]) -> None:
        super().__init__(daemon=True)
        self._first, self._ended = first, threading.Event()
        self._own: list[float] = []
        self._all: list[float] = []
        self.start()

    def run(self) -> None:
        while not self._ended.wait(1.0):
            parents = {pid: _parent(pid) for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))}
            family = set(self._first)
            while more := {pid for pid, parent in parents.items() if parent in family} - family:
                family |= more
            self._own.append(sum(map(_resident, self._first)))
            self._all.append(sum(map(_resident, family)))

    def end(self) -> dict[str, Any]:
        """The peaks in MB, and that of the first processes in the first and the last third of the time."""
        self._ended.set()
        third = max(1, len(self._own) // 3)
        own = [max(self._own[third : 2 * third], default=0), max(self._own[-third:], default=0)]
        return {
            "first_processes_mb": round(max(self._own, default=0)),
            "in_the_middle_and_last_third_mb": [round(value) for value in own],
            "all_processes_mb": round(max(self._all, default=0)),
        }


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


if __name__ == "__main__":
    try:
        main()
    except typer.Exit as error:
        sys.exit(error.exit_code)
