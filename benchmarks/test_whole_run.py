"""The whole-run benchmark is started by hand (`python -m benchmarks.whole_run`); here it only has to work."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from . import whole_run


def test_measures_every_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_run, "MEASURED", 1)
    whole_run.main(["--size", "32", "--kernel-size", "9", "--narrow", "32", "--out", str(tmp_path)])
    (table,) = tmp_path.rglob("whole_run.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = [row["run"] for row in rows]
    assert runs[0] == "order of the release"
    assert runs[-1] == "proximal, 50 steps"
    assert len(runs) == len(set(runs)) == 5
    assert all(float(row["s per image"]) > 0 for row in rows)
    steps = {row["run"]: (int(row["full steps"]), int(row["plain steps"])) for row in rows}
    assert steps["posterior, S_T = 0, K = 16"] == (64, 936)
    assert float(rows[0]["release / this"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
