"""The programs that kill runs and follow the memory of a folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


def test_half_files_and_other_bits_are_faults(kill_runs: ModuleType, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "r.json").write_text("{}")
    reference, temporary = kill_runs.files_in(tmp_path)
    assert (sorted(reference), temporary) == (["a.png", "r.json"], 0)
    (tmp_path / "r.json").write_text("[1]")
    (tmp_path / ".latentdem-1.png").write_bytes(reference["a.png"][:200])
    assert kill_runs.files_in(tmp_path) == ({**reference, "r.json": b"[1]"}, 1)
    assert kill_runs.faults_of(tmp_path, reference, {"r.json"}, finished=True) == []
    other = ["r.json has other contents"]
    assert kill_runs.faults_of(tmp_path, reference, set(), finished=True, twice=True) == other
    assert kill_runs.faults_of(tmp_path, reference, set(), finished=False) == other
    assert kill_runs.faults_of(tmp_path, reference, set(), finished=False, twice=True) == []
    (tmp_path / "a.png").write_bytes(reference["a.png"][:200])
    (tmp_path / "r.json").unlink()
    whole, other, missing = kill_runs.faults_of(tmp_path, reference, {"r.json"}, finished=True)
    assert (whole, other) == ("a.png is not whole", "a.png has other contents")
    assert missing == "r.json is missing"
    assert len(kill_runs.faults_of(tmp_path, reference, {"r.json"}, finished=False)) == 2


def test_a_mesh_must_be_whole(kill_runs: ModuleType, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra three-d is not installed")
    trimesh.creation.box().export(tmp_path / "m.glb")
    assert kill_runs.readable(tmp_path / "m.glb")
    (tmp_path / "m.glb").write_bytes((tmp_path / "m.glb").read_bytes()[:-100])
    assert not kill_runs.readable(tmp_path / "m.glb")


def test_a_killed_process_is_told_from_one_that_ends(
    kill_runs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    for status in (0, 3):
        monkeypatch.setattr(kill_runs, "latentdem", partial(sys.exit, status))
        assert kill_runs.end(kill_runs.start([], tmp_path / "run")) == status
    monkeypatch.setattr(kill_runs, "latentdem", lambda: kill_runs.time.sleep(60))
    assert kill_runs.end(kill_runs.start([], tmp_path / "run"), 0.01) is None


def test_small_pictures_of_all_sizes(folder_memory: ModuleType, tmp_path: Path) -> None:
    folder_memory.write_pictures(tmp_path / "photos", 7)
    sizes = [Image.open(path).size for path in sorted((tmp_path / "photos").iterdir())]
    assert sizes == [*folder_memory.SIZES, folder_memory.SIZES[0]]
    assert 1 < folder_memory.resident() < 1e6
