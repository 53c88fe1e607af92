"""The report in Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentdem import UserError
from latentdem.distributed import report as module
from latentdem.distributed.report import ParquetReport

pq = pytest.importorskip("pyarrow.parquet", reason="the extra ray is not installed")


def entry(name: str, status: str = "restored", **more: Any) -> dict[str, Any]:
    return {"input": name, "output": f"out/{name}", "status": status, **more}


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = pq.read_table(folder).to_pylist()
    assert len({row["input"] for row in found}) == len(found)
    return {row["input"]: row for row in found}


def test_rows_have_columns_and_the_rest_as_json(tmp_path: Path) -> None:
    report = ParquetReport(tmp_path / "r")
    size = {"height": 20, "width": 24}
    report.add(entry("a", size=size, seconds={"search": 1.0, "total": 2.5}, residual=0.02, lead=float("nan")))
    report.add(entry("b", "failed", reason="Damaged."))
    report.flush()
    found = rows(tmp_path / "r")
    assert (found["a"]["height"], found["a"]["width"], found["a"]["seconds"]) == (20, 24, 2.5)
    assert '"search": 1.0' in found["a"]["report"]
    assert '"lead": null' in found["a"]["report"]
    assert found["b"]["reason"] == "Damaged."
    assert found["b"]["height"] is None


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 3)
    report = ParquetReport(tmp_path)
    for i in range(7):
        report.add(entry(str(i)))
    assert len(rows(tmp_path)) == 6
    report.flush()
    report.flush()
    assert len(rows(tmp_path)) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"part-00000{i}.parquet" for i in range(3)]


def test_a_later_run_replaces_rows_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    report = ParquetReport(tmp_path)
    for each in (entry("a"), entry("b", "failed"), entry("c", "failed"), entry("d", "failed"), entry("e")):
        report.add(each)
    report.flush()
    report = ParquetReport(tmp_path)
    # c was restored by another command since; f before there was a report.
    assert report.forget(again=["b", "d"], done=["a", "c", "f"]) == {"a"}
    assert set(rows(tmp_path)) == {"a", "e"}
    report.add(entry("b"))
    report.flush()
    assert rows(tmp_path)["b"]["status"] == "restored"
    assert set(rows(tmp_path)) == {"a", "b", "e"}


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-000000.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="is no report of this command"):
        ParquetReport(tmp_path).forget([], [])
