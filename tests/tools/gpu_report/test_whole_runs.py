"""Which whole runs the GPU report measures, with runs that compute nothing, and its photographs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]


class Pretended:
    """In place of `whole_run.Run`: notes what is asked for."""

    device, side, kernel_size, public = "cpu", 16, 5, None

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def __call__(self, batch: int, steps: int, graph: bool) -> None:
        self.asked.append((batch, steps, graph))

    def step(self, z: torch.Tensor, kernel: torch.Tensor) -> None:
        self.asked.append((tuple(z.shape), tuple(kernel.shape)))


@pytest.fixture
def whole_run(module, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return module("whole_run")


@pytest.fixture
def measured(whole_run, monkeypatch):
    """Rows of all that is measured, and what was asked for, when every measurement takes two seconds."""
    run = Pretended()
    monkeypatch.setattr(whole_run, "public_runs", lambda _: {"a program": (run.step, 100)})
    monkeypatch.setattr(whole_run, "seconds", lambda function: (function(), 2.0)[1])
    rows = [row for measure in whole_run.rows_of(run, small=False) for row in measure()]
    return rows, run.asked


def test_every_batch_runs_with_graphs_and_without(measured):
    rows, asked = measured
    runs = [row for row in rows if row["kind"] == "whole run" and row["what"].startswith("proximal")]
    pairs = [(row["batch"], row["graph"]) for row in runs]
    assert pairs == [(1, "on"), (1, "off"), (4, "on"), (4, "off"), (16, "on"), (16, "off")]
    # Fifty steps in two seconds, an image's share.
    assert [row["s_per_image"] for row in runs] == [2.0, 2.0, 0.5, 0.5, 0.125, 0.125]
    # Each after some steps that are not timed, in which graphs are captured and replayed.
    for batch, graph in ((1, True), (4, False), (16, False)):
        assert asked.index((batch, 3, graph)) < asked.index((batch, 50, graph))


def test_steps_of_programs_are_multiplied(measured):
    rows, asked = measured
    (row,) = [row for row in rows if row.get("what") == "a program"]
    assert asked.count(((1, 4, 2, 2), (1, 1, 5, 5))) == 1 + 4
    assert (row["steps"], row["steps_of_a_run"], row["s_per_image"]) == (4, 100, 50.0)
    assert "graph" not in row


def test_profiles_are_of_steps_with_graphs_and_without(measured):
    rows, asked = measured
    functions = [(row["graph"], row["function"]) for row in rows if row["kind"] == "profile"]
    assert functions[0] == ("off", "all")
    assert functions[-1] == ("on", "all")
    assert asked.count((1, 10, False)) == 2  # and one in which waits are counted


def test_photographs_of_two_sizes_are_restored_blind(module, whole_run, monkeypatch):
    blind, asked = module("blind"), []

    def restore(y, device, cuda_graph, **options):
        asked.append((tuple(y.shape), cuda_graph, options))
        return SimpleNamespace(image=y)

    monkeypatch.setattr(blind, "deblur", restore)
    rows = [row for measure in blind.rows_of("cpu", small=False) for row in measure()]
    small, large = (1, 3, 256, 256), (1, 3, 1024, 1024)
    assert asked == [(small, True, {}), (small, True, {}), (small, False, {}), (large, True, {})]
    assert [row["graph"] for row in rows] == ["on", "on", "off", "on"]
    assert [row["photograph"] for row in rows[1:]] == ["256 x 256", "256 x 256", "1024 x 1024"]
    assert all(15 < row["psnr"] < 30 for row in rows)  # of the blurred ones


def test_a_mosaic_is_a_photograph_of_its_size(module, whole_run):
    blind = module("blind")
    y, sharp = blind.mosaic(300)
    assert y.shape == sharp.shape == (1, 3, 300, 300)
    assert float(y.abs().max()) <= 1
    assert 0.01 < float((y - sharp).square().mean()) < 0.1 < float(sharp.std())
    # Mirrored at the edge of the example: no seam that a blur would not have.
    inner = 256 - blind.KERNEL_SIZE // 2
    assert torch.equal(sharp[..., inner - 5 : inner].flip(-1), sharp[..., inner : inner + 5])
