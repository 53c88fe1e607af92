"""Tells what the new views of an object lack: shape, light or texture.

    python tools/compare_looks.py OBJECTS --weights runs/views/weights --out runs/looks

Every object is rendered in four looks: as it is; without light, so that a colour does not depend on the
direction of a side; in its mean colour; and in its mean colour without light, as a silhouette. The cameras are
those of `latentdem evaluate-3d`, and the poses are given. The error of a silhouette is that of the shape; what
the mean colour adds to it is due to the light, and what the object as it is adds to that is due to its texture.
Needs `pip install "latentdem[three-d]"`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from latentdem.three_d.evaluation.cases import known_cameras
from latentdem.three_d.geometry.cameras import relative_pose
from latentdem.three_d.geometry.poses import ring
from latentdem.three_d.objects.base import Faces, Floats, Surface, VisibleObject
from latentdem.three_d.objects.sets import ObjectFiles, ObjectSet, ProceduralObjects
from latentdem.three_d.priors.embedded import EMBEDDED_3D_WEIGHTS, EmbeddedViewPrior
from latentdem.three_d.reconstruction import reconstruct
from latentdem.three_d.synthetic.render import on_white, render

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
LOOKS = ("as it is", "no light", "mean colour", "silhouette")


@dataclass(frozen=True)
class Plain:
    """A surface in another look, and an object made of such surfaces.

    Attributes:
        shown: the surface as it is.
        lit: whether its colours depend on the direction of its sides.
        colour: (3,) the colour of all of it; None for its own colours.
    """

    shown: Surface
    lit: bool
    colour: Floats | None

    @property
    def two_sided(self) -> bool:
        return self.shown.two_sided

    def corners(self) -> Floats:
        return self.shown.corners()

    def facing(self, light: Floats) -> Floats:
        facing = self.shown.facing(light)
        return facing if self.lit else np.zeros_like(facing)

    def colours(self, faces: Faces, shares: Floats, points: Floats, pixels: Floats) -> Floats:
        if self.colour is not None:
            return np.broadcast_to(self.colour, (len(faces), 3))
        return self.shown.colours(faces, shares, points, pixels)


@dataclass(frozen=True)
class PlainObject:
    """An object in another look."""

    parts: Sequence[Surface]

    @classmethod
    def of(cls, shown: VisibleObject, lit: bool, colour: Floats | None) -> PlainObject:
        return cls([Plain(part, lit, colour) for part in shown.parts])


def in_looks(shown: VisibleObject, cameras: Tensor) -> dict[str, VisibleObject]:
    """An object in all `LOOKS`; its mean colour is that in the pictures of `cameras` (V, 3)."""
    flat = PlainObject.of(shown, False, None)
    pictures = render(flat, cameras).astype(float)
    white = render(PlainObject.of(shown, False, np.ones(3)), cameras)  # as bright as all sides without light
    seen = pictures[..., 3] > 0
    colour = pictures[seen][:, :3].mean(0) / white[seen][:, :3].max()
    looks = (shown, flat, PlainObject.of(shown, True, colour), PlainObject.of(shown, False, colour))
    return dict(zip(LOOKS, looks, strict=True))


def errors(prior: EmbeddedViewPrior, shown: VisibleObject, cameras: Tensor, views: int) -> dict[int, float]:
    """Mean squared errors of new views, of values in [0, 1], from one and from two known views of `cameras`."""
    known, truth = (
        torch.from_numpy(on_white(render(shown, seen, prior.image_size))).movedim(-1, 1) / 127.5 - 1
        for seen in (cameras[:2], cameras[0] + ring(views, (0.0,)))
    )
    result = {}
    for count in (1, 2):
        poses = relative_pose(cameras[:count], cameras[:1])
        found = reconstruct(known[:count], prior=prior, azimuths=views, steps=25, poses=poses)
        result[count] = float((found.views - truth).square().mean() / 4)
    return result


@app.command()
def compare(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of meshes; procedural objects without it.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Names of files in it, separated by commas; all of them.")
    ] = None,
    weights: Annotated[Path, typer.Option(help="Weights of the prior.")] = EMBEDDED_3D_WEIGHTS,
    views: Annotated[int, typer.Option(help="New views of each object.")] = 12,
    objects: Annotated[int, typer.Option(help="Number of procedural objects.")] = 8,
    out: Annotated[Path, typer.Option(help="The file of results, with a row for each object and look.")] = Path(
        "looks.csv"
    ),
) -> None:
    """Writes mean squared errors and prints their means and PSNR."""
    shown: ObjectSet = ProceduralObjects()
    if folder is not None:
        shown = ObjectFiles.of(folder)
        if names is not None:
            shown = ObjectFiles(folder, tuple(names.split(",")), "z")
        objects = shown.count(None)
    prior, rows = EmbeddedViewPrior.from_pretrained(weights), []
    for index in range(objects):
        cameras = known_cameras(index, 0)
        for look, scene in in_looks(shown.load(index), cameras).items():
            for count, error in errors(prior, scene, cameras, views).items():
                rows.append({"object": shown.name(index), "look": look, "views": count, "error": error})
        _write(out, rows)
        typer.echo(f"{index + 1} of {objects}: {shown.name(index)}")
    for count in (1, 2):
        for look in LOOKS:
            found = np.array([row["error"] for row in rows if (row["look"], row["views"]) == (look, count)])
            quality, error = -10 * np.log10(found).mean(), 1e4 * found.mean()
            typer.echo(f"{count} known, {look}: {quality:.2f} dB, error {error:.1f}e-4")


def _write(out: Path, rows: list[dict[str, object]]) -> None:
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    app()
