"""Objects of an evaluation, their known views and their true new views."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..geometry.cameras import RADIUS
from ..geometry.poses import ring
from ..objects.base import MeasuredObject
from ..objects.sets import ObjectSet, ProceduralObjects
from ..synthetic.render import Light, on_white, render

KNOWN = 3  # known views of each object
APART = math.radians(30)  # smallest difference between the azimuths of two known views
FILE_SIZE = 256  # pixels along one side of a view as a file
POLARS = (math.radians(50), math.radians(100))  # range of the polar angles of known views


@dataclass(frozen=True)
class ViewSettings:
    """Everything that determines the figures of an evaluation, apart from the methods.

    Attributes:
        prior: see `reconstruct`.
        views: number of views to be generated, on a ring at the height of view 1.
        steps: diffusion steps.
        seed: random seed of the cameras and the methods; the objects are always the same.
        objects: the objects.
        light: whether the light stays with the object or with the camera, see `render`.
    """

    prior: str = "embedded-3d"
    views: int = 12
    steps: int = 50
    seed: int = 0
    objects: ObjectSet = ProceduralObjects()
    light: Light = "object"

    def identity(self) -> dict[str, Any]:
        """The settings as numbers and text."""
        return {**asdict(self), "objects": str(self.objects)}


@dataclass(frozen=True)
class ViewCase:
    """An object and its views, the same for all methods.

    Attributes:
        name: name of the object.
        scene: the object.
        cameras: (3, 3) cameras of the known views, the first being the reference.
        inputs: (3, 3, S, S) known views, in [-1, 1] on white.
        truth: (K, 3, S, S) true views at the targets.
        light: see `ViewSettings`.
    """

    name: str
    scene: MeasuredObject
    cameras: Tensor
    inputs: Tensor
    truth: Tensor
    light: Light = "object"

    def files(self, count: int) -> list[Image.Image]:
        """The first known views as larger pictures with an alpha channel."""
        views = render(self.scene, self.cameras[:count], FILE_SIZE, self.light)
        return [Image.fromarray(view, "RGBA") for view in views]


def make_case(index: int, settings: ViewSettings, size: int) -> ViewCase:
    """Object number `index` in pictures of `size` pixels, the same at every call.

    Raises:
        UserError: the object cannot be read.
    """
    scene, cameras = settings.objects.load(index), known_cameras(index, settings.seed)
    inputs, truth = (
        torch.from_numpy(on_white(render(scene, seen, size, settings.light))).movedim(-1, 1) / 127.5 - 1
        for seen in (cameras, cameras[0] + ring(settings.views, (0.0,)))
    )
    return ViewCase(settings.objects.name(index), scene, cameras, inputs, truth, settings.light)


def known_cameras(index: int, seed: int) -> Tensor:
    """Random cameras (3, 3) of the known views, whose azimuths differ by 30 to 180 degrees."""
    rng = np.random.default_rng([seed, index])
    azimuths: list[float] = []
    while len(azimuths) < KNOWN:
        new = rng.uniform(-math.pi, math.pi)
        if all(abs(math.remainder(new - other, 2 * math.pi)) >= APART for other in azimuths):
            azimuths.append(new)
    polars = rng.uniform(*POLARS, KNOWN)
    rows = [[polar, azimuth, RADIUS] for polar, azimuth in zip(polars, azimuths, strict=True)]
    return torch.tensor(rows, dtype=torch.float32)
