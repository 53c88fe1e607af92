"""`--engine ray` on a local cluster of two processes, one of which is killed."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from latentdem.cli import _console as console
from latentdem.cli._cluster import RayEngine
from latentdem.cli._outputs import Existing
from latentdem.cli._run import run
from latentdem.cli._task import Outcome, Outputs
from latentdem.distributed.pool import ATTEMPTS, Pool, Share, cluster
from latentdem.io.images import read_image, write_image
from latentdem.priors import EmbeddedPrior

pq = pytest.importorskip("pyarrow.parquet", reason="the extra ray is not installed")
# Not importorskip: what Ray says of itself is settled before it is imported.
without_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
pytestmark = [pytest.mark.slow, without_ray]

Scene = Callable[..., Tensor]
CORES = max(1, (os.cpu_count() or 1) // 2)  # so that there is room for two processes


def stand_in(log: Path, deadly: str, always: bool, interrupted: int | None = None) -> Any:
    """A `Task` that gives back its input, and is killed where it gets the photograph `deadly`, once or always.

    Where the process `interrupted` is given, that one gets a Ctrl-C instead, and the photograph takes long.
    A class of a function goes to the processes with its code, which do not find the modules of the tests.
    """

    class StandIn:
        ending, batch_size, inputs, kept = "_deblurred", 3, (), None

        def prepare(self, count: int) -> None:
            pass

        def group(self, source: Any) -> Any:
            return source.pixels.shape

        def restore(self, sources: list[Any], group: Any, progress: Any) -> list[Outcome]:
            names = [source.path.name for source in sources]
            if deadly in names and (always or deadly not in log.read_text()):
                log.open("a").write(f"{deadly}\n")
                os.kill(interrupted or os.getpid(), signal.SIGINT if interrupted else signal.SIGKILL)
                time.sleep(1000)
            with log.open("a") as file:
                file.write("".join(f"{name}\n" for name in names))
            report = {"residual": 0.01, "pid": os.getpid(), "seconds": {"total": 0.1}}
            return [Outcome(source.pixels, source, report, [], {}) for source in sources]

        def complaint(self, unexplained: Any, several: bool) -> tuple[str, int]:
            raise AssertionError

    log.touch()
    return StandIn()


@pytest.fixture
def photos(here: Path, scene: Scene) -> Path:
    """24 photographs of two sizes, and a file that is none."""
    (here / "photos").mkdir()
    for i in range(24):
        write_image(f"photos/{i:02}.png", scene(20, 24 if i % 2 else 20, seed=i))
    Path("photos/bad.png").write_bytes(b"no image")
    return here / "photos"


def restore(task: Any, existing: Existing = Existing()) -> int:  # noqa: B008
    """The exit status of a run."""
    console.set_verbosity()
    engine = RayEngine(None, CORES, "cpu", Path("report"))
    try:
        run([Path("photos")], task, Outputs("out", None, existing, None, None), engine)
    except typer.Exit as end:
        return end.exit_code
    return 0


def rows() -> dict[str, dict[str, Any]]:
    """The report, which has one row for every photograph."""
    found = pq.read_table("report").to_pylist()
    assert len({row["input"] for row in found}) == len(found)
    return {Path(row["input"]).name: row for row in found}


def test_a_lost_process_loses_nothing_and_the_next_run_continues(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = photos.parent / "log"
    assert restore(stand_in(log, "07.png", always=False)) == 4
    said = capfd.readouterr()
    assert "A process of the cluster was lost; what it had in hand is done again." in said.err
    assert "photos/bad.png is not an image" in said.err
    assert "raylet" not in said.err + said.out
    names = {f"{i:02}.png" for i in range(24)}
    assert {path.name for path in Path("out").iterdir()} == {f"{name[:2]}_deblurred.png" for name in names}
    for name in names:
        same = torch.equal(
            read_image(f"photos/{name}").pixels, read_image(f"out/{name[:2]}_deblurred.png").pixels
        )
        assert same, name
    times = Counter(log.read_text().split())
    assert times == Counter(names) + Counter(["07.png"])  # which also says where it was killed
    found = rows()
    assert {name: row["status"] for name, row in found.items()} == {
        **dict.fromkeys(names, "restored"),
        "bad.png": "failed",
    }
    assert len({row["report"].partition('"pid": ')[2][:8] for row in found.values()}) >= 2

    Path("photos/bad.png").unlink()
    Path("out/03_deblurred.png").unlink()
    Image.new("RGB", (20, 20)).save("photos/new.png")
    log.write_text("")
    assert restore(stand_in(log, "none", always=False), Existing(skip=True)) == 0
    assert sorted(log.read_text().split()) == ["03.png", "new.png"]
    found = rows()
    assert set(found) == {*names, "new.png", "bad.png"}
    assert found["00.png"]["status"] == found["03.png"]["status"] == "restored"


def test_a_photograph_that_kills_every_process_costs_only_its_batch(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = photos.parent / "log"
    assert restore(stand_in(log, "07.png", always=True)) == 4
    assert Counter(log.read_text().split())["07.png"] == ATTEMPTS
    failed = {name: row["reason"] for name, row in rows().items() if row["status"] == "failed"}
    assert failed.pop("bad.png").startswith("photos/bad.png is not an image")
    assert failed.keys() == {"07.png", "09.png", "11.png"}
    assert "The process that restored it was lost 3 times" in failed["07.png"]
    assert len(list(Path("out").iterdir())) == 21


def test_after_an_interruption_the_next_run_continues(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = photos.parent / "log"
    assert restore(stand_in(log, "13.png", always=False, interrupted=os.getpid())) == 130
    there = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert f"Interrupted; {len(there)} of 25 are written" in capfd.readouterr().err
    assert 0 < len(there) < 22
    assert sum(row["status"] == "restored" for row in rows().values()) == len(there)
    assert restore(stand_in(log, "none", always=False), Existing(skip=True)) == 4  # bad.png
    assert len(list(Path("out").iterdir())) == 24
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert len(rows()) == 25


def test_the_results_are_those_of_one_process(
    cli: Any, here: Path, scene: Scene, tiny_prior: EmbeddedPrior
) -> None:
    Path("photos").mkdir()
    for i in range(3):
        write_image(f"photos/{i}.png", scene(20, 24, seed=i))
    tiny_prior.autoencoder.save_pretrained("prior/autoencoder")
    tiny_prior.unet.save_pretrained("prior/unet")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule).save_pretrained("prior/scheduler")
    np.save("kernel.npy", np.full((3, 3), 1 / 9))  # one that is found is refused with a random prior
    arguments = [
        "deblur",
        "photos",
        "--prior",
        "prior",
        "--kernel",
        "kernel.npy",
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    on_ray = ["--engine", "ray", "--cores", CORES]
    torch.set_num_threads(CORES)
    cli.run(*arguments, "-o", "one")
    result = cli.run(*arguments, "-o", "two", *on_ray, "--extras", "extras")
    assert "restored       3" in result.stdout
    for i in range(3):
        name = f"{i}_deblurred.png"
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
        assert Path("extras", f"{i}_deblurred_report.json").exists()
    sentence = cli.sentence(*arguments[:2], "-o", "three", "--prior", "nothing/here", *on_ray)
    assert "nothing/here" in sentence


def test_batches_wait_here_until_a_process_is_free() -> None:
    drawn = []

    class Adding:
        def prepare(self) -> None:
            pass

        def work(self, batch: int) -> int:
            return batch + 1

    def batches() -> Iterator[int]:
        for i in range(200):
            drawn.append(i)
            yield i

    with cluster(None):
        done = {}
        for batch, result in Pool(Adding, Share(CORES, 0), 2).map(batches()):
            assert len(drawn) <= len(done) + 4
            done[batch] = result
    assert done == {i: i + 1 for i in range(200)}
