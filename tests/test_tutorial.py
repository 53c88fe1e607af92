"""The notebook of the tutorial runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "guide" / "tutorial.ipynb"
# In place of the cell of parameters: what takes seconds instead of minutes.
TINY = 'size = 48\nkernel_size = 9\noptions = {"steps": 2, "device": "cpu", "quality": "fast"}'


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            source = TINY if "parameters" in cell["metadata"].get("tags", []) else "".join(cell["source"])
            exec(compile(source, f"cell {cell['id']}", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"sharp.png", "figure.png"}
