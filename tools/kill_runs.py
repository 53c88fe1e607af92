"""Kills runs of a command with SIGKILL at random moments, looks at what they left, and resumes them.

    python tools/kill_runs.py deblur --checkpoint --count 100 --out runs/kill_runs

A fault is a file under its final name that is not whole, a resumed run that fails, and a resumed run whose
files are not those of uninterrupted runs, bit for bit. Files in which two uninterrupted runs differ, because
they hold times, must be readable. Each run is a process of its own, forked from one that has imported
everything, so that the moments fall into the restoration and not into the imports. With a checkpoint, every
step is saved instead of one in 5 s.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from safetensors import safe_open
from tqdm import tqdm

from latentdem.cli import main as latentdem
from latentdem.solver.checkpoint import Checkpoint
from latentdem.three_d.checkpoint import ViewCheckpoint

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TEMPORARY = ".latentdem-"
KEPT = "kept"  # the folder of --checkpoint


class What(str, Enum):
    """The command to kill."""

    deblur = "deblur"
    folder = "folder"
    views = "views"


@dataclass(frozen=True)
class Run:
    """A command, run in a folder whose parent holds its inputs.

    Attributes:
        command: the arguments.
        more: what the same command needs to go on.
        twice: whether results are written a second time with more detail, so that a kill may leave the first.
    """

    command: list[str]
    more: list[str]
    twice: bool = False


def prepare(what: What, checkpoint: bool, extras: bool, out: Path) -> Run:
    """Writes the inputs to the folder `out`."""
    kept = ["--checkpoint", KEPT] * checkpoint
    if what is What.views:
        views = [f"../chair_{i}.png" for i in (1, 2)]
        for view in views:
            shutil.copy(EXAMPLES / Path(view).name, out)
        command = ["views", *views, "-o", "views", "--mesh", "mesh.glb", "--azimuths", "4", "--steps", "2"]
        return Run([*command, *kept], ["--overwrite"], twice=True)
    blurred = Image.open(EXAMPLES / "blurred.png")
    pictures = [blurred.crop((x, x, x + 32, x + 32)) for x in (60, 100, 140)]
    np.save(out / "kernel.npy", np.full((1, 5), 0.2, np.float32).repeat(5, 0) * np.eye(5, dtype=np.float32))
    options = ["--kernel", "../kernel.npy", "--steps", "6", "--quality", "fast"]
    options += ["--extras", "extras"] * extras
    if what is What.deblur:
        pictures[0].save(out / "photo.png")
        return Run(["deblur", "../photo.png", "-o", "photo.png", *options, *kept], ["--overwrite"])
    if checkpoint:
        raise typer.BadParameter("a folder has no checkpoint; its finished pictures are kept")
    (out / "photos").mkdir()
    for i, picture in enumerate(pictures):
        picture.save(out / "photos" / f"{i}.png")
    return Run(["deblur", "../photos", "-o", "deblurred", *options], ["--skip-existing"])


def start(arguments: list[str], folder: Path) -> int:
    """The process id of a command that begins in `folder`; what it says goes to log.txt beside the folder."""
    if pid := os.fork():
        return pid
    status = 70
    try:
        log = os.open(folder.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        sys.argv = ["latentdem", *arguments, "--quiet"]
        latentdem()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def end(pid: int, seconds: float | None = None) -> int | None:
    """The exit status of the process, or None if it had to be killed after `seconds`."""
    until = None if seconds is None else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.001)


def files_in(folder: Path) -> tuple[dict[str, bytes], int]:
    """The files in a folder by name, and the number of temporary ones, which are not among them."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    final = [name for name in names if TEMPORARY not in name]
    return {name: (folder / name).read_bytes() for name in final}, len(names) - len(final)


def readable(path: Path) -> bool:
    """Whether the whole file can be read as what its name says."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                for name in list(file.keys()):
                    file.get_tensor(name)
        elif path.suffix == ".npy":
            np.load(path, allow_pickle=False)
        elif path.suffix == ".glb":
            import trimesh

            trimesh.load(path)
        else:
            Image.open(path).load()
    except Exception:
        return False
    return True


def faults_of(
    folder: Path, reference: dict[str, bytes], changing: set[str], finished: bool, twice: bool = False
) -> list[str]:
    """What is wrong with the files in `folder` after a kill or, if `finished`, after the run is resumed."""
    found, _ = files_in(folder)
    same = {name for name in found if name not in changing and found[name] == reference.get(name)}
    other = {name for name in found if name not in same and not readable(folder / name)}
    faults = [f"{name} is not whole" for name in sorted(other)]
    results = {name for name in found if not name.startswith(KEPT)}
    if finished or not twice:
        faults += [f"{name} has other contents" for name in sorted(results - same - changing)]
    if finished:
        faults += [f"{name} is missing" for name in sorted(reference.keys() - found.keys())]
        faults += [f"{name} is left" for name in sorted(found.keys() - reference.keys())]
    return faults


def main(
    what: Annotated[What, typer.Argument(help="Command to kill.")],
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="Run with --checkpoint.")] = False,
    extras: Annotated[bool, typer.Option("--extras", help="Run with --extras, except views.")] = False,
    count: Annotated[int, typer.Option(help="Kills.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the moments.")] = 0,
    out: Annotated[Path, typer.Option(help="New folder for the runs.")] = Path("runs/kill_runs"),
) -> None:
    """Kills runs at random moments and resumes them; the exit status is 1 if there is a fault."""
    torch.set_num_threads(1)  # a process with threads must not fork
    Checkpoint.interval = ViewCheckpoint.interval = 0.0
    out = out.resolve()
    out.mkdir(parents=True)
    run = prepare(what, checkpoint, extras, out)
    for name in ("warm", "first", "second"):
        (out / name).mkdir()
    _run_here(run, out / "warm")
    seconds, contents = [], []
    for name in ("first", "second"):
        began = time.monotonic()
        if end(start(run.command, out / name)) != 0:
            raise typer.BadParameter(f"the uninterrupted run fails; see {out / 'log.txt'}")
        seconds.append(time.monotonic() - began)
        contents.append(files_in(out / name)[0])
    reference, again = contents
    changing = {name for name in reference if again.get(name) != reference[name]}
    typer.echo(f"{len(reference)} files in {np.mean(seconds):.2f} s; with times in them: {sorted(changing)}")
    counts: Counter[str] = Counter()
    generator = np.random.default_rng(seed)
    progress = tqdm(total=count, desc="kills", disable=None)
    for i in itertools.count():
        if counts["killed"] == count:
            break
        folder = out / f"{i:04d}"
        folder.mkdir()
        faults = _kill_and_resume(
            run, folder, generator.uniform(0, np.mean(seconds)), reference, changing, counts
        )
        progress.n = counts["killed"]
        progress.refresh()
        if faults:
            counts["faults"] += 1
            typer.echo(f"{folder}: {'; '.join(faults)}")
        else:
            shutil.rmtree(folder)
    progress.close()
    typer.echo(
        ", ".join(f"{number} {name}" for name, number in counts.items()) + f", {counts['faults']} faults"
    )
    raise typer.Exit(1 if counts["faults"] else 0)


def _run_here(run: Run, folder: Path) -> None:
    """One run in this process, after which everything is imported."""
    before, arguments = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["latentdem", *run.command, "--quiet"]
    try:
        latentdem()
    except SystemExit:
        pass  # the status is that of the runs after it, too
    finally:
        os.chdir(before)
        sys.argv = arguments


def _kill_and_resume(
    run: Run,
    folder: Path,
    after: float,
    reference: dict[str, bytes],
    changing: set[str],
    counts: Counter[str],
) -> list[str]:
    """What is wrong after a kill and after the run that resumes; counts what there was."""
    if end(start(run.command, folder), after) is not None:
        counts["ended before"] += 1
        return faults_of(folder, reference, changing, finished=True)
    found, temporary = files_in(folder)
    counts["killed"] += 1
    counts["with a checkpoint"] += any(name.endswith(".safetensors") for name in found)
    counts["with results"] += any(not name.startswith(KEPT) for name in found)
    counts["with a temporary file left"] += temporary > 0
    early = faults_of(folder, reference, changing, False, run.twice)
    faults = [f"killed after {after:.3f} s: {fault}" for fault in early]
    if (status := end(start([*run.command, *run.more], folder))) != 0:
        faults.append(f"the resumed run ends with {status}")
    return faults + faults_of(folder, reference, changing, finished=True)


if __name__ == "__main__":
    typer.run(main)
