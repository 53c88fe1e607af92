"""What a picture's file says of the lens, and the picture of a camera that is turned towards the object."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import ExifTags, Image
from skimage.transform import ProjectiveTransform, warp
from torch import Tensor

FILM_DIAGONAL = math.hypot(36, 24)  # millimetres
SAME_SHAPE = 0.02  # relative difference of height over width from which a picture counts as cropped later
TURNED = math.radians(1)  # objects nearer to the optical axis than this are left as they are
ROOM = 1.3  # side of a turned picture in units of the longest side of the object


def focal_length(exif: bytes | None, width: int, height: int) -> float | None:
    """Focal length in pixels by EXIF's FocalLengthIn35mmFilm, which refers to the diagonal of the picture.

    None where the file does not have it, is damaged or was cropped, so that its proportions are others than
    EXIF's PixelXDimension and PixelYDimension say.

    Args:
        exif: EXIF block.
        width, height: size of the picture in pixels.
    """
    if exif is None:
        return None
    tags = Image.Exif()
    try:
        tags.load(exif)
        camera = tags.get_ifd(ExifTags.IFD.Exif)
        length = float(camera.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        sides = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
        whole = [float(camera.get(side, 0)) for side in sides]
    except Exception:  # Pillow lets errors of damaged blocks through as they are
        return None
    if not 0 < length < math.inf:
        return None
    if min(whole) > 0:
        shape, now = min(whole) / max(whole), min(width, height) / max(width, height)
        if abs(now / shape - 1) > SAME_SHAPE:
            return None
    return length * math.hypot(width, height) / FILM_DIAGONAL


def field_of_view(focal: float, width: int, height: int) -> float:
    """Angle in radians that the longer side of a picture shows.

    Args:
        focal: focal length in pixels.
        width, height: size of the picture in pixels.
    """
    return 2 * math.atan(max(width, height) / (2 * focal))


def turned_towards(layers: Tensor, focal: float, middle: tuple[float, float], side: float) -> Tensor | None:
    """The square picture of a camera at the same place with the object in the middle and the horizon level.

    A pinhole camera stretches what lies off its axis. The homography of a pure rotation takes that back
    (Hartley and Zisserman 2004, Eq. 8.7). None if the object is on the axis already.

    Args:
        layers: (1, C, H, W) channels of the picture.
        focal: focal length in pixels.
        middle: of the object, in pixels from the left and from the top.
        side: longest side of the object in pixels.
    """
    height, width = layers.shape[-2:]
    axis = np.array([(middle[0] - width / 2) / focal, (middle[1] - height / 2) / focal, 1.0])
    if math.hypot(*axis[:2]) < math.tan(TURNED):
        return None
    axis /= np.linalg.norm(axis)
    right = np.cross([0.0, 1.0, 0.0], axis)
    right /= np.linalg.norm(right)
    turn = np.stack([right, np.cross(axis, right), axis], 1)
    size = math.ceil(ROOM * side)
    # Centres of pixels lie half a pixel from their edges.
    before = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    after = np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])
    way = ProjectiveTransform(before @ turn @ np.linalg.inv(after))
    turned = warp(layers[0].movedim(0, -1).numpy(), way, output_shape=(size, size), order=1, mode="edge")
    return torch.from_numpy(turned.astype(np.float32)).movedim(-1, 0)[None]
