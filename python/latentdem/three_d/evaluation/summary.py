"""Comparison of the methods: table, summary and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ...evaluation.tables import cell
from ...io.files import atomic_path, make_folder, write_json
from ...output.report import peak_memory, versions
from ...output.sheets import Panel, panels
from ..geometry.cameras import RADIUS
from ..geometry.poses import ring
from ..synthetic.render import on_white, render, render_mesh
from .cases import ViewCase, ViewSettings, make_case
from .methods import METHODS
from .store import ViewRow, ViewStore

GOOD = 15.0  # degrees; a pose with a smaller error counts as correct
SHOWN_VIEWS, SHOWN_OBJECTS = 12, 20  # largest numbers in pictures
ABOVE, BESIDE = np.deg2rad(65.0), np.deg2rad(40.0)  # polar angle, and azimuth from view 1, of drawn meshes
MESH_SIZE = 128  # pixels along one side of a drawn mesh
COLUMNS = {
    "objects": ("objects", "d"),
    "psnr": ("PSNR", ".2f"),
    "gain": ("gain", "+.2f"),
    "ssim": ("SSIM", ".3f"),
    "pose_median": ("pose error", ".1f"),
    "pose_share": (f"under {GOOD:g}°", ".0%"),
    "height_error": ("height error", ".1f"),
    "chamfer": ("Chamfer", ".3f"),
    "iou": ("IoU", ".3f"),
    "seconds": ("seconds", ".1f"),
    "mesh_seconds": ("mesh seconds", ".1f"),
    "memory_mb": ("MB", ".0f"),
}
NOTE = (
    "PSNR in dB, its gain over one view on the same objects; the median pose error and the share under "
    f"{GOOD:g} degrees over all poses that were sought; the mean error of the height of view 1 in degrees; the "
    "Chamfer distance in units of the object's radius, and the volume IoU."
)

NOTE_OTHERS = (
    "Meshes of other programs were centred, scaled, and turned about the vertical axis to fit the object best; "
    "ours were not."
)


def figures(rows: Sequence[ViewRow], one: Sequence[ViewRow]) -> dict[str, float | int | None]:
    """Figures of one method over the objects, by the names of `COLUMNS`; None if there are none.

    Args:
        rows: rows of the method.
        one: rows of the method with one view, the baseline of gains.
    """
    base = {row.object: row.psnr for row in one if row.psnr is not None}
    poses = np.array([e for row in rows for e in (row.pose_error, row.pose_error_3) if e is not None])
    means = {
        name: _mean([value for row in rows if (value := getattr(row, name)) is not None])
        for name in ("psnr", "ssim", "height_error", "chamfer", "iou", "seconds", "mesh_seconds", "memory_mb")
    }
    return {
        **means,
        "objects": len(rows),
        "gain": _mean(
            [row.psnr - base[row.object] for row in rows if row.psnr is not None and row.object in base]
        ),
        "pose_median": float(np.median(poses)) if len(poses) else None,
        "pose_share": float((poses < GOOD).mean()) if len(poses) else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def write_summary(
    store: ViewStore,
    settings: ViewSettings,
    identity: dict[str, Any],
    size: int,
    failures: dict[str, str],
) -> None:
    """Writes table.md, summary.json and meshes.png from all rows in the folder.

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
    results = {name: figures([row for row in store.rows if row.method == name], one) for name in _names(store)}
    own = {method.name: method for method in METHODS}
    measured = any(values["memory_mb"] is not None for values in results.values())
    shown = {name: column for name, column in COLUMNS.items() if name != "memory_mb" or measured}
    lines = [_line(["method", *(title for title, _ in shown.values())]), _line(["---"] * (len(shown) + 1))]
    for method, values in results.items():
        title = own[method].title if method in own else method
        cells = (cell(values[name], form) or "-" for name, (_, form) in shown.items())
        lines.append(_line([title, *cells]))
    lines += ["", NOTE]
    if set(results) - set(own):
        lines.append(NOTE_OTHERS)
    lines += [f"Failed, {name}: {reason}" for name, reason in failures.items()]
    with atomic_path(store.folder / "table.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
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
        pictures = [Panel(_image(render(case.scene, camera, MESH_SIZE, settings.light)), case.name)]
        for row in _finished_rows(store, index):
            _, mesh = store.load(row)
            if mesh is not None:
                title = f"{row.method} {row.iou:.2f}"
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


def _image(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(on_white(picture)).movedim(-1, 1) / 127.5 - 1


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
