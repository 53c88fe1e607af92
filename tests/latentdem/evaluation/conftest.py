"""Photographs, blurred pictures and the tables of results that the tests of the evaluation share."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from latentdem.evaluation import loop, picture_tables, tables
from latentdem.io.images import write_image

Scene = Callable[..., Tensor]
Table = Callable[[Path], list[dict[str, str]]]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sheets and plots are not drawn, which takes a second each."""
    monkeypatch.setattr(loop, "contact_sheet", lambda rows, path: None)
    monkeypatch.setattr(tables, "comparison_sheet", lambda rows, path: None)
    monkeypatch.setattr(tables, "plot_seconds", lambda methods, path: None)
    monkeypatch.setattr(picture_tables, "contact_sheet", lambda rows, path, cell=1.9: None)


@pytest.fixture
def photos(tmp_path: Path, scene: Scene) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(2):
        write_image(folder / f"street {i}.png", scene(40, 40, seed=i))
    return folder


@pytest.fixture
def levin(tmp_path: Path, scene: Scene) -> Path:
    """Two blurred pictures of Levin's set with a kernel."""
    folder = tmp_path / "levin"
    for part in ("blurred", "sharp", "kernels"):
        (folder / part).mkdir(parents=True)
    for i in (1, 2):
        write_image(folder / "sharp" / f"im{i}.png", scene(60, 60, channels=1, seed=i))
        write_image(folder / "blurred" / f"im{i}_kernel1_img.png", scene(60, 60, channels=1, seed=i) * 0.9)
    np.save(folder / "kernels" / "kernel1.npy", np.ones((17, 17)) / 289)
    return folder


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def table() -> Table:
    """Path of a CSV file -> its rows."""
    return _table
