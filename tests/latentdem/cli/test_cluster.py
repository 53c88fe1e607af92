"""`--engine ray`: what needs no cluster; `test_cluster_of_two.py` has the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from latentdem.cli._cluster import Worker, batches
from latentdem.cli._jobs import Job
from latentdem.cli._outputs import Existing
from latentdem.cli._task import Outputs
from latentdem.io.images import write_image

# Not importorskip: what Ray says of itself is settled before it is imported.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
Scene = Callable[..., Tensor]


def test_without_ray_one_sentence_says_what_to_install(
    cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "pyarrow", sys)
    sentence = cli.sentence("deblur", "../photo.png", "--engine", "ray")
    assert sentence == "This needs ray; install with: pip install ray pyarrow fsspec"


@needs_ray
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "-"], "--engine ray writes to files"),
        (["--json", "r.json"], "give --parquet, not --json"),
        (["--checkpoint", "kept"], "--engine ray continues with --skip-existing"),
        (["--same-kernel"], "--same-kernel restores all photographs in one process"),
        (["--device", "cuda:1"], "--engine ray gives each process its device; leave out --device cuda:1."),
        (["--extras", "s3://bucket/extras"], "--extras is a folder and no address"),
        (["--parquet", "s3://bucket/report"], "--parquet is a folder and no address"),
    ],
)
def test_options_that_do_not_fit(cli: Any, here: Path, options: list[str], message: str) -> None:
    assert message in cli.sentence("deblur", "../photo.png", "--engine", "ray", *options)


@needs_ray
def test_torchrun_shares_already(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "leave out that or --engine ray" in cli.sentence("deblur", "../photo.png", "--engine", "ray")


@pytest.mark.parametrize("option", ["--address", "--cores", "--parquet"])
def test_options_of_the_engine_alone(cli: Any, here: Path, option: str) -> None:
    sentence = cli.sentence("deblur", "../photo.png", option, "1")
    assert sentence == f"{option} is an option of --engine ray; add that, or leave out {option}."


def test_batches_have_one_size(here: Path, scene: Scene) -> None:
    jobs = []
    for i, size in enumerate([(20, 24), (24, 20), (20, 24), (20, 24), (24, 20)]):
        write_image(f"{i}.png", scene(*size))
        jobs.append(Job(Path(f"{i}.png"), f"{i}.png", Path(f"out/{i}.png"), str(i)))
    jobs.append(Job(Path("missing.png"), "missing.png", Path("out/missing.png"), "missing"))
    names = [[job.name for job in batch] for batch in batches(jobs, 2)]
    assert names == [["0.png", "2.png"], ["1.png", "4.png"], ["3.png"], ["missing.png"]]
    assert [len(batch) for batch in batches(jobs, 1)] == [1] * 6


class Faulty:
    """A `Task` with a defect."""

    ending, batch_size, inputs, kept = "_deblurred", 1, (), None

    def prepare(self, count: int) -> None:
        pass

    def group(self, source: Any) -> Any:
        return source.pixels.shape

    def restore(self, sources: list[Any], group: Any, progress: Any) -> Any:
        raise ZeroDivisionError("division by zero")


def test_a_defect_costs_its_batch_and_is_told(here: Path, scene: Scene) -> None:
    write_image("a.png", scene(20, 24))
    jobs = [Job(Path(name), name, Path(f"out_{name}"), name) for name in ("missing.png", "a.png")]
    outputs = Outputs(None, None, Existing(), None, None)
    worker = Worker(Faulty(), outputs, 1, 2, here, 30)  # type: ignore[arg-type]
    part = worker.work(jobs)
    assert part.record.failed == jobs
    reason = "a.png: A defect of latentdem (ZeroDivisionError: division by zero)."
    assert [message for _, message in part.messages] == ["missing.png does not exist; check the path.", reason]
    assert part.record.reports[1]["reason"] == reason
