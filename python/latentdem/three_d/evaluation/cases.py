"""What the objects of an evaluation are, and how they are seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..cameras import RADIUS
from ..poses import ring
from ..synthetic.render import on_white, render
from ..synthetic.scenes import HELD_OUT, Scene, random_scene

FIRST = HELD_OUT + 1000  # seed of object 0; the held-out objects before it are looked at during training
KNOWN = 3  # views of each object that a method may be given
APART = math.radians(30)  # in azimuth at least, any two of these
FILE_SIZE = 256  # pixels of a view as a file
POLARS = (math.radians(50), math.radians(100))  # between which they are taken


@dataclass(frozen=True)
class ViewSettings:
    """Everything that determines the figures of an evaluation, but for the methods.

    Attributes:
        prior: as in `reconstruct`.
        views: that are generated, on a ring at the height of view 1.
        steps: diffusion steps.
        seed: of the cameras, and of the methods' randomness; the objects are always the same.
    """

    prior: str = "embedded-3d"
    views: int = 12
    steps: int = 50
    seed: int = 0


@dataclass(frozen=True)
class ViewCase:
    """An object, the same for all methods.

    Attributes:
        scene: the object.
        cameras: (3, 3) of its known views, the first being the reference.
        inputs: (3, 3, S, S) these views, in [-1, 1] on white.
        truth: (K, 3, S, S) what the views to be generated look like.
    """

    scene: Scene
    cameras: Tensor
    inputs: Tensor
    truth: Tensor

    def files(self, count: int) -> list[Image.Image]:
        """The first known views as larger pictures with an alpha channel."""
        return [Image.fromarray(each, "RGBA") for each in render(self.scene, self.cameras[:count], FILE_SIZE)]


def make_case(index: int, settings: ViewSettings, size: int) -> ViewCase:
    """Object number `index` in pictures of `size` pixels, the same at every call."""
    scene, cameras = random_scene(FIRST + index), known_cameras(index, settings.seed)
    inputs, truth = (
        torch.from_numpy(on_white(render(scene, each, size))).movedim(-1, 1) / 127.5 - 1
        for each in (cameras, cameras[0] + ring(settings.views, (0.0,)))
    )
    return ViewCase(scene, cameras, inputs, truth)


def known_cameras(index: int, seed: int) -> Tensor:
    """Cameras (3, 3) of the known views: uniform, with azimuths that differ by 30 to 180 degrees."""
    rng = np.random.default_rng([seed, index])
    azimuths: list[float] = []
    while len(azimuths) < KNOWN:
        new = rng.uniform(-math.pi, math.pi)
        if all(abs(math.remainder(new - other, 2 * math.pi)) >= APART for other in azimuths):
            azimuths.append(new)
    polars = rng.uniform(*POLARS, KNOWN)
    rows = [[polar, azimuth, RADIUS] for polar, azimuth in zip(polars, azimuths, strict=True)]
    return torch.tensor(rows, dtype=torch.float32)
