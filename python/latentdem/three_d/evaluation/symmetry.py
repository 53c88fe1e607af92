"""The poses from which an object looks like one of its pictures, all of which are true answers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..objects.base import VisibleObject
from ..synthetic.render import on_white, render

STEP = 5  # degrees between the azimuths that are compared
ALIKE = 0.05  # root mean square difference over an object, in units of the range of pixels, that counts as none
SIZE = 64  # pixels along one side of the pictures that are compared


def true_cameras(scene: VisibleObject, first: Tensor, other: Tensor) -> Tensor:
    """Cameras (P, 3) of a view that explain it and view 1 equally well, the true one first.

    A box that has the same print on both sides looks the same when it is turned by half, and a mug whose handle
    is hidden when it is turned a little. Only azimuths differ, as objects stand upright. The object is lit from
    the camera, because nobody knows where the light of a picture came from. Source of the idea: the symmetries
    of an object in the benchmark of Hodan et al. 2020, *BOP Challenge*.

    Args:
        scene: the object.
        first: (3,) camera of view 1.
        other: (3,) camera of the other view.
    """
    turns = torch.arange(0, 360, STEP) * (math.pi / 180)
    # To turn the object between the views by some angle changes what one of them sees, seen from the other.
    alike = _looks_alike(scene, other, turns) | _looks_alike(scene, first, -turns)
    cameras = other.repeat(int(alike.sum()), 1)
    cameras[:, 1] += turns[alike]
    return cameras


def _looks_alike(scene: VisibleObject, camera: Tensor, turns: Tensor) -> Tensor:
    """Whether an object looks the same from a camera (3,) turned about it by each of some angles (N,)."""
    cameras = camera.repeat(len(turns) + 1, 1)
    cameras[1:, 1] += turns
    pictures = render(scene, cameras, SIZE, "camera")
    colours = on_white(pictures).astype(np.float32) / 255
    shown = pictures[..., 3] / 255
    squares = np.square(colours[1:] - colours[0]).mean(-1).sum((1, 2))
    pixels = np.maximum(shown[1:], shown[0]).sum((1, 2))
    return torch.from_numpy(squares <= ALIKE**2 * pixels)
