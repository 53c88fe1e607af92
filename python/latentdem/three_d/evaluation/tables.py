"""Tables of an evaluation: the means of every method, and its figures for each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...evaluation.tables import cell, line
from .methods import METHODS
from .store import ViewRow

GOOD = 15.0  # degrees; a pose with a smaller error counts as correct
SURE = 0.9  # a pose with at least this confidence counts as sure
COLUMNS = {
    "objects": ("objects", "d"),
    "psnr": ("PSNR", ".2f"),
    "gain": ("gain", "+.2f"),
    "ssim": ("SSIM", ".3f"),
    "pose_median": ("pose error", ".1f"),
    "pose_share": (f"under {GOOD:g}°", ".0%"),
    "nearest_share": ("or as good", ".0%"),
    "confidence": ("confidence", ".2f"),
    "sure_share": (f"under {GOOD:g}° if sure", ".0%"),
    "height_error": ("height error", ".1f"),
    "chamfer": ("Chamfer", ".3f"),
    "iou": ("IoU", ".3f"),
    "seconds": ("seconds", ".1f"),
    "mesh_seconds": ("mesh seconds", ".1f"),
    "memory_mb": ("MB", ".0f"),
}
NOTE = (
    "PSNR in dB, its gain over one view on the same objects; the median pose error and the share under "
    f"{GOOD:g} degrees over all poses that were sought; the share under {GOOD:g} degrees where the nearest of "
    "the poses from which the object looks the same counts (or as good); the mean confidence, and that share "
    f"of the poses with a confidence of {SURE:g} or more (sure); the mean error of the height of view 1 in "
    "degrees; the Chamfer distance in units of the object's radius, and the volume IoU."
)
NOTE_OBJECTS = (
    "PSNR in dB and SSIM of the new views, the volume IoU of the mesh; pose errors in degrees, "
    "after a slash that to the nearest pose from which the object looks the same, if it is another, and in "
    "parentheses the confidence of the search in these poses."
)
NOTE_OTHERS = (
    "Meshes of other programs were centred, scaled, and turned about the vertical axis to fit the object best; "
    "ours were not."
)
_TITLES = {method.name: method.title for method in METHODS}

Figures = dict[str, float | int | None]


def figures(rows: Sequence[ViewRow], one: Sequence[ViewRow]) -> Figures:
    """Figures of one method over the objects, by the names of `COLUMNS`; None if there are none.

    Args:
        rows: rows of the method.
        one: rows of the method with one view, the baseline of gains.
    """
    base = {row.object: row.psnr for row in one if row.psnr is not None}
    poses = np.array([pose for row in rows for pose in sought_poses(row)]).reshape(-1, 3)
    errors, nearest, confidence = poses.T
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
        "pose_median": float(np.median(errors)) if len(errors) else None,
        "pose_share": _mean(errors < GOOD),
        "nearest_share": _mean(nearest < GOOD),
        "confidence": _mean(confidence),
        "sure_share": _mean(nearest[confidence >= SURE] < GOOD),
    }


def means_table(results: Mapping[str, Figures]) -> list[str]:
    """Lines of a table with a row for each method.

    Args:
        results: figures of each method by its name, see `figures`.
    """
    measured = any(values["memory_mb"] is not None for values in results.values())
    shown = {name: column for name, column in COLUMNS.items() if name != "memory_mb" or measured}
    lines = [line(["method", *(title for title, _ in shown.values())]), line(["---"] * (len(shown) + 1))]
    for method, values in results.items():
        cells = (cell(values[name], form) or "-" for name, (_, form) in shown.items())
        lines.append(line([_TITLES.get(method, method), *cells]))
    return [*lines, "", NOTE, *([NOTE_OTHERS] if set(results) - set(_TITLES) else [])]


def objects_table(rows: Mapping[str, Sequence[ViewRow]], results: Mapping[str, Figures]) -> list[str]:
    """Lines of a table with a row for each object, and the means below.

    Args:
        rows: rows of each method by its name.
        results: figures of each method by its name, see `figures`.
    """
    columns, names = [], {row.object: row.name for own in rows.values() for row in own}
    for method, own in rows.items():
        title = _TITLES.get(method, method)
        cells = {row.object: _quality(vars(row)) for row in own}
        columns.append([f"{title}: PSNR / SSIM / IoU", *_ordered(cells, names), _quality(results[method])])
        poses = {row.object: ", ".join(map(_pose, sought_poses(row))) for row in own}
        if any(poses.values()):
            columns.append(["pose error (confidence)", *_ordered(poses, names), _poses(results[method])])
    columns.insert(0, ["object", *(names[index] for index in sorted(names)), "mean"])
    head, *body = (line(list(cells)) for cells in zip(*columns, strict=True))
    return [head, line(["---"] * len(columns)), *body, "", NOTE_OBJECTS]


def _ordered(cells: Mapping[int, str], names: Mapping[int, str]) -> list[str]:
    return [cells.get(index) or "-" for index in sorted(names)]


def _quality(values: Mapping[str, float | int | None]) -> str:
    forms = {name: COLUMNS[name][1] for name in ("psnr", "ssim", "iou")}
    return " / ".join(cell(values[name], form) or "-" for name, form in forms.items())


def _pose(pose: tuple[float, float, float]) -> str:
    error, nearest, confidence = pose
    return f"{error:.1f}{f' / {nearest:.1f}' if nearest < error else ''} ({confidence:.2f})"


def _poses(values: Figures) -> str:
    error, share = values["pose_median"], values["pose_share"]
    return f"median {error:.1f} ({values['confidence']:.2f}), {share:.0%} under {GOOD:g}"


def sought_poses(row: ViewRow) -> list[tuple[float, float, float]]:
    """Error in degrees of each pose that was sought, that to the nearest equal pose, and the confidence."""
    poses = (
        (row.pose_error, row.nearest_error, row.confidence),
        (row.pose_error_3, row.nearest_error_3, row.confidence_3),
    )
    return [(e, n, sure) for e, n, sure in poses if e is not None and n is not None and sure is not None]


def _mean(values: Sequence[float] | NDArray[np.floating] | NDArray[np.bool_]) -> float | None:
    return float(np.mean(values)) if len(values) else None
