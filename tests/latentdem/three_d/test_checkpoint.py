"""Interrupted reconstructions resume with the same result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentdem.errors import UserError
from latentdem.three_d import ReconstructionConfig, reconstruct
from latentdem.three_d.checkpoint import ViewCheckpoint

QUICK = replace(ReconstructionConfig(), refinements=2, hypotheses=2)
STEPS = 6


class Stop(Exception):
    """Simulates the end of a process."""


@pytest.fixture(autouse=True)
def _write_every_step(monkeypatch):
    monkeypatch.setattr(ViewCheckpoint, "interval", 0.0)


def run(problem, folder=None, **options):
    defaults = {"prior": problem.prior, "azimuths": 2, "steps": STEPS, "config": QUICK, "checkpoint": folder}
    return reconstruct(problem.views, **{**defaults, **options})


def stop_at(phase, share):
    """A progress function that raises once this share is done."""

    def progress(name, done, total):
        if name == phase and done / total >= share:
            raise Stop

    return progress


def count(problem, monkeypatch):
    """Timesteps of all later calls of the network."""
    calls, predict = [], problem.prior.predict_noise
    monkeypatch.setattr(problem.prior, "predict_noise", lambda *a: calls.append(a[1]) or predict(*a))
    return calls


@pytest.mark.parametrize("views", [1, 3])
def test_same_bits(exact, tmp_path, views):
    problem, folder = exact(views), tmp_path / "kept"
    whole = run(problem)
    for phase, share in (("poses", 0.1), ("views", 0.5), ("views", 0.75), ("views", 1.0)):
        if views > 1 or phase == "views":
            with pytest.raises(Stop):
                run(problem, folder, progress=stop_at(phase, share))
    resumed = run(problem, folder)
    assert torch.equal(resumed.views, whole.views)
    assert torch.equal(resumed.poses, whole.poses)
    assert torch.equal(resumed.confidence, whole.confidence)
    assert not folder.exists()


def test_finished_steps_are_not_repeated(exact, tmp_path, monkeypatch):
    problem, folder = exact(2), tmp_path / "kept"
    with pytest.raises(Stop):
        run(problem, folder, progress=stop_at("views", 0.69))
    calls = count(problem, monkeypatch)
    run(problem, folder)
    assert calls == sorted(calls, reverse=True)
    assert len(calls) == 2 * (STEPS // 2)  # once for view 1, once for the view whose pose moves


def test_a_checkpoint_of_the_caller_is_not_removed(exact, tmp_path, monkeypatch):
    problem, kept = exact(2), ViewCheckpoint(tmp_path / "kept")
    first = run(problem, kept)
    calls = count(problem, monkeypatch)
    assert torch.equal(run(problem, ViewCheckpoint(tmp_path / "kept")).views, first.views)
    assert not calls
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    kept.remove()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["notes.txt"]


def test_other_runs_and_damaged_files_are_refused(exact, tmp_path):
    problem, folder = exact(2), tmp_path / "kept"
    with pytest.raises(Stop):
        run(problem, folder, progress=stop_at("views", 0.5))
    with pytest.raises(UserError, match=r"with other settings .*seed 0 instead of 3"):
        run(problem, folder, seed=3)
    other = exact(2)
    other.views = other.views.flip(0)
    with pytest.raises(UserError, match=r"with other settings .*images and poses"):
        run(other, folder)
    path = folder / "views.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged; delete the folder"):
        run(problem, folder)
