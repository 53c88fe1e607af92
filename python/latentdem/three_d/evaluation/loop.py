"""Runs every method on every held-out object and measures the results against the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import trimesh
from torch import Tensor

from ...checks import check_backend, resolve_device
from ...errors import UserError
from ...output.report import versions
from ..geometry.cameras import relative_pose
from ..output.result import Reconstruction
from ..priors.base import ViewPrior
from ..priors.loading import load_view_prior
from ..reconstruction import reconstruct
from .cases import ViewCase, ViewSettings, make_case
from .external import ExternalViews, PublishedViews
from .measures import compare_surface, pose_error, view_quality
from .methods import ViewMethod
from .store import ViewRow, ViewStore
from .summary import write_object, write_summary
from .symmetry import true_cameras

ViewProgress = Callable[[float, int, str], None]
MESH_SHARE = 0.2  # share of the mesh in the progress of one object
NOT_MEASURED = dict.fromkeys(("psnr", "ssim", "height_error", "chamfer", "iou", "mesh_seconds"))


@dataclass
class ViewEvaluation:
    """Result of an evaluation: one row per object and method, reasons of failures, and the output folder."""

    store: ViewStore
    rows: list[ViewRow] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def evaluate_views(
    out: str | Path,
    settings: ViewSettings,
    methods: Sequence[ViewMethod | ExternalViews],
    *,
    objects: int | None = None,
    device: str = "auto",
    progress: ViewProgress | None = None,
) -> ViewEvaluation:
    """Runs methods on the first held-out objects, all on the same inputs.

    Finished results are kept in `out`: after an interruption the same call resumes, and methods and objects can
    be added later.

    Args:
        out: folder of metrics.csv, table.md, objects.md, summary.json, settings.json, meshes.png and objects/.
        settings: see `ViewSettings`.
        methods: see `methods.METHODS`, and `external_views` for programs of other people.
        objects: number of objects; None for 20 procedural ones, or all files.
        device: see `reconstruct`.
        progress: called with the number of finished reconstructions (with the fraction of the current one),
            their total, and the current object and method.

    Raises:
        UserError: the prior or device does not exist, or `out` holds an evaluation with other settings or of
            other objects.
    """
    prior = load_view_prior(settings.prior, resolve_device(device))
    identity = {**settings.identity(), "backend": check_backend(), "latentdem": versions()["latentdem"]}
    evaluation = ViewEvaluation(ViewStore(Path(out), identity))
    store, count, done = evaluation.store, settings.objects.count(objects), 0
    _check_names(store, settings)
    total = count * len(methods)
    report = progress or (lambda done, total, name: None)
    for index in range(count):
        case: ViewCase | None = None
        for method in methods:
            name = f"{settings.objects.name(index)}, {method.name}"
            report(done, total, name)
            row = store.find(index, method.name)
            if isinstance(method, ExternalViews) and isinstance(method.source, PublishedViews):
                row = None  # its files may have changed
            if row is None:
                try:
                    case = case or make_case(index, settings, prior.image_size)
                except UserError as error:
                    evaluation.failures[settings.objects.name(index)] = str(error)
                    done = (index + 1) * len(methods)
                    break

                def within(share: float, done: int = done, name: str = name) -> None:
                    report(done + share, total, name)

                try:
                    if isinstance(method, ExternalViews):
                        row, views, mesh = method.run(index, case, settings)
                    else:
                        row, views, mesh = _run(index, method, case, settings, prior, device, within)
                except UserError as error:
                    evaluation.failures[name] = str(error)
                else:
                    store.add(row, views, mesh)
            if row is not None:
                evaluation.rows.append(row)
            done += 1
        if case is not None:
            write_object(store, index, case)
    report(total, total, "summary")
    if store.rows:
        write_summary(store, settings, identity, prior.image_size, evaluation.failures)
    return evaluation


def _check_names(store: ViewStore, settings: ViewSettings) -> None:
    """Makes sure that objects which were added or removed do not give other numbers to those with results.

    Raises:
        UserError: they do.
    """
    for row in store.rows:
        if not settings.objects.has(row.object, row.name):
            raise UserError(
                f"Object {row.object + 1} was '{row.name}' when {store.folder} was written, and is another one "
                "now; choose another folder with -o, or bring back the objects as they were."
            )


def _run(
    index: int,
    method: ViewMethod,
    case: ViewCase,
    settings: ViewSettings,
    prior: ViewPrior,
    device: str,
    within: Callable[[float], None],
) -> tuple[ViewRow, Tensor, trimesh.Trimesh | None]:
    """Figures of a method for an object, its views (K, 3, S, S) and its mesh."""
    cameras = case.cameras[: method.inputs]
    result = reconstruct(
        case.files(method.inputs) if method.files else case.inputs[: method.inputs],
        prior=prior,
        azimuths=settings.views,
        steps=settings.steps,
        seed=settings.seed,
        device=device,
        poses=relative_pose(cameras, cameras[:1]) if method.posed else None,
        config=method.config,
        progress=lambda phase, done, total: within((1 - MESH_SHARE) * done / total),
    )
    # of each pose that was sought: its error, the error to the nearest true one, and the confidence in it
    found: list[tuple[float, float, float]] = []
    if method.searches:
        for k in range(1, method.inputs):
            sought, true, sure = cameras[0] + result.poses[k], cameras[k], result.confidence[k]
            nearest = pose_error(sought, true_cameras(case.scene, cameras[0], true)).min()
            found.append((float(pose_error(sought, true)), float(nearest), float(sure)))
    none = (None, None, None)
    (error, nearest_2, confidence), (error_3, nearest_3, confidence_3) = [*found, none, none][:2]
    mesh, figures = (None, NOT_MEASURED) if method.files else _measure(result, case)
    row = ViewRow(
        object=index,
        name=case.name,
        method=method.name,
        pose_error=error,
        pose_error_3=error_3,
        nearest_error=nearest_2,
        nearest_error_3=nearest_3,
        confidence=confidence,
        confidence_3=confidence_3,
        seconds=result.seconds["total"],
        **figures,
    )
    return row, result.views, mesh


def _measure(result: Reconstruction, case: ViewCase) -> tuple[trimesh.Trimesh | None, dict[str, Any]]:
    """Mesh in the coordinates of the object, and the figures of views and mesh.

    A missing surface has an IoU of 0.
    """
    views = dict(zip(("psnr", "ssim"), view_quality(result.views, case.truth), strict=True))
    try:
        solid = result.solid()
    except UserError:
        return None, {**NOT_MEASURED, **views, "iou": 0.0}
    turn = float(case.cameras[0, 1] - solid.camera[1])
    mesh = solid.mesh.copy()
    mesh.apply_transform(trimesh.transformations.rotation_matrix(turn, (0, 0, 1)))
    chamfer, iou = compare_surface(mesh, case.scene)
    height = torch.rad2deg(solid.camera[0] - case.cameras[0, 0]).abs()
    return mesh, {
        **views,
        "height_error": float(height),
        "chamfer": chamfer,
        "iou": iou,
        "mesh_seconds": solid.seconds,
    }
