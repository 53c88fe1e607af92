"""Files that compare the methods: tables, summary and pictures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...io.files import atomic_path, make_folder, write_json
from ...output.report import peak_memory, versions
from ...output.sheets import Panel, panels
from ..geometry.cameras import RADIUS
from ..geometry.poses import ring
from ..synthetic.render import on_white, render, render_mesh
from .cases import ViewCase, ViewSettings, make_case
from .methods import METHODS
from .store import ViewRow, ViewStore
from .tables import figures, means_table, objects_table

SHOWN_VIEWS, SHOWN_OBJECTS = 12, 20  # largest numbers in pictures
ABOVE, BESIDE = np.deg2rad(65.0), np.deg2rad(40.0)  # polar angle, and azimuth from view 1, of drawn meshes
MESH_SIZE = 128  # pixels along one side of a drawn mesh
TITLE = 24  # characters that fit above it


def write_summary(
    store: ViewStore,
    settings: ViewSettings,
    identity: dict[str, Any],
    size: int,
    failures: dict[str, str],
) -> None:
    """Writes table.md, objects.md, summary.json and meshes.png from all rows in the folder.

    Args:
        store: store of the evaluation.
        settings: settings of the evaluation.
        identity: settings of the folder.
        size: pixels along one side of a view.
        failures: reasons of failures, by object and method.

    Raises:
        UserError: a file cannot be written.
    """
    one = [row for row in store.rows if row.method == "one"]
    rows = {name: [row for row in store.rows if row.method == name] for name in _names(store)}
    results = {name: figures(own_rows, one) for name, own_rows in rows.items()}
    own = {method.name: method for method in METHODS}
    failed = [f"Failed, {name}: {reason}" for name, reason in failures.items()]
    for name, lines in (("table.md", means_table(results)), ("objects.md", objects_table(rows, results))):
        with atomic_path(store.folder / name) as temporary:
            temporary.write_text("\n".join([*lines, *failed]) + "\n", encoding="utf-8")
    summary = {
        "settings": identity,
        "versions": versions(),
        "methods": {
            name: {**values, "config": asdict(own[name].config)} if name in own else values
            for name, values in results.items()
        },
        "failures": failures,
        "peak_memory": peak_memory(),
    }
    write_json(store.folder / "summary.json", summary)
    _write_meshes(store, settings, size)


def write_object(store: ViewStore, index: int, case: ViewCase) -> None:
    """Writes views.png of an object: known views, true ones, and those of each method.

    Raises:
        UserError: a file cannot be written.
    """
    shown = np.unique(np.linspace(0, len(case.truth), SHOWN_VIEWS, endpoint=False).astype(int))
    azimuths = ring(len(case.truth), (0.0,))[:, 1].rad2deg()
    offsets = (case.cameras[:, 1] - case.cameras[0, 1]).rad2deg()
    offsets = (offsets + 180) % 360 - 180
    known = [f"view {i + 1}: {float(offset):+.0f}°" for i, offset in enumerate(offsets)]
    rows = [
        [Panel(view[None], title) for view, title in zip(case.inputs, known, strict=True)],
        [Panel(case.truth[i, None], f"true {float(azimuths[i]):+.0f}°") for i in shown],
    ]
    for row in _finished_rows(store, index):
        views, _ = store.load(row)
        first = row.method if row.psnr is None else f"{row.method} {row.psnr:.1f} dB"
        titles = [first] + [""] * (len(shown) - 1)
        rows.append([Panel(views[i, None], title) for i, title in zip(shown, titles, strict=True)])
    folder = store.object_folder(index)
    make_folder(folder)
    panels(rows, folder / "views.png")


def _write_meshes(store: ViewStore, settings: ViewSettings, size: int) -> None:
    """Writes meshes.png with a row for each object, the truth first."""
    sheet = []
    for index in sorted({row.object for row in store.rows})[:SHOWN_OBJECTS]:
        try:
            case = make_case(index, settings, size)
        except UserError:  # its file was there when it was measured
            continue
        camera = torch.tensor([[ABOVE, float(case.cameras[0, 1]) + BESIDE, RADIUS]])
        pictures = [Panel(_image(render(case.scene, camera, MESH_SIZE, settings.light)), _short(case.name))]
        for row in _finished_rows(store, index):
            _, mesh = store.load(row)
            if mesh is not None:
                title = row.method if row.iou is None else f"{row.method} {row.iou:.2f}"
                pictures.append(Panel(_image(render_mesh(mesh, camera, MESH_SIZE)), title))
        sheet.append(pictures)
    panels(sheet, store.folder / "meshes.png")


def _names(store: ViewStore) -> list[str]:
    """Methods that have results, ours in the order of the table and then those of other people."""
    found = {row.method for row in store.rows}
    own = [method.name for method in METHODS if method.name in found]
    return [*own, *sorted(found - set(own))]


def _finished_rows(store: ViewStore, index: int) -> list[ViewRow]:
    """Finished rows of an object in the order of the methods."""
    order = _names(store)
    return sorted((r for r in store.rows if r.object == index), key=lambda row: order.index(row.method))


def _short(name: str) -> str:
    """A name that fits above a picture: its beginning and its end."""
    return name if len(name) <= TITLE else f"{name[: TITLE // 2]}…{name[1 - TITLE // 2 :]}"


def _image(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(on_white(picture)).movedim(-1, 1) / 127.5 - 1
