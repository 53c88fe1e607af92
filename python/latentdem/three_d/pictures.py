"""Photographs of an object prepared for a view-conditioned prior: cut out, centred, on white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import UserError
from ..io.inputs import OneImage, open_image
from ..io.masks import MaskLike
from .cutout import PLAIN, SEEN, CutoutLike, Opacity, no_object, opacity_of, ways_of
from .geometry.cameras import FIELD_OF_VIEW, RADIUS
from .lens import field_of_view, focal_length, turned_towards

FILLED = 0.75  # longest side of an object in units of the frame, as in training renderings at distance `RADIUS`
BILINEAR = Image.Resampling.BILINEAR
SKETCH_SIDE = 192  # largest side of a sketch in pixels
FADED = 0.35  # contrast of the background in a sketch
OUTLINE = (1.0, -0.2, -1.0)  # colour of the outline in a sketch, in [-1, 1]


@dataclass(frozen=True)
class Picture:
    """A view prepared for the prior.

    Attributes:
        pixels: (1, 3, S, S) float32 in [-1, 1] on white.
        cut: whether the object was separated from its background; otherwise the whole picture counts as object.
        mask: (S, S) in [0, 1], the share of each pixel that the object covers; None if the object was not cut
            out here, because the whole picture counts as object or the object was on white before.
        how: how it was separated, see `Opacity`; None if the object was on white before.
        sure: see `Opacity`.
        field_of_view: angle in radians that the longer side of the whole picture shows, if its file says so.
        sketch: (3, h, w) in [-1, 1], the whole picture made small, with the object outlined and the rest faded;
            None if nothing was cut away here.
    """

    pixels: Tensor
    cut: bool
    mask: Tensor | None = None
    how: str | None = None
    sure: bool = True
    field_of_view: float | None = None
    sketch: Tensor | None = None


class Crops:
    """Square crops of pictures of one object, cut out of their backgrounds.

    Pictures are assumed to be taken from one distance if their files say the fields of view, or if they have
    one width and height, upright or not: the object is scaled by the same factor in all of them, such that its
    longest side in any of them takes `FILLED` of the frame. Otherwise each picture has its own factor. A crop
    is centred on the visible part of the object. If the field of view is known, the crop is what a camera
    turned towards the object would show (see `turned_towards`).

    Args:
        images: paths, PIL images (with or without transparency), arrays or tensors (1, C, H, W), as accepted by
            `io.inputs.open_image`; of any size and shape.
        size: pixels S along one side of a crop.
        names: names of the images in messages.
        cutout: how the object is cut out, see `ways_of`.

    Attributes:
        cut: whether the object was separated from its background in all pictures.
        one_distance: whether the pictures are assumed to be taken from one distance.
        polar: (n,) polar angles of the cameras as they were estimated from the first crops; None without.
        deviation: (n, 5) standard deviations of the errors of what was estimated (`ViewPrior.framing`).

    Raises:
        UserError: an image is unreadable or shows no object, or a mask is missing.
    """

    def __init__(
        self, images: Sequence[OneImage], size: int, names: Sequence[str], cutout: CutoutLike = "auto"
    ) -> None:
        self._size = size
        ways = ways_of(cutout, names)
        self._objects = [_cut_out(*each) for each in zip(images, names, ways, strict=True)]
        self.cut = all(part.cut for part in self._objects)
        self.polar: Tensor | None = None
        self.deviation: Tensor | None = None
        sides = [part.longest / (FILLED if part.cut else 1) for part in self._objects]
        lengths = [part.focal for part in self._objects]
        alike = len({tuple(sorted(part.frame)) for part in self._objects}) == 1
        self.one_distance = self.cut and (None not in lengths or alike)
        if self.cut and None not in lengths:
            largest = max(side / length for side, length in zip(sides, lengths, strict=True) if length)
            sides = [largest * length for length in lengths if length]
        elif self.one_distance:
            sides = [max(sides)] * len(sides)
        self._squares = [
            _Square((part.left + part.right) / 2, (part.top + part.bottom) / 2, side)
            for part, side in zip(self._objects, sides, strict=True)
        ]

    def framed(self, cameras: Tensor) -> Crops:
        """Other crops of the same pictures: as seen from the distance `RADIUS`, with the origin in the middle.

        Args:
            cameras: (n, 5) cameras of the present crops, with distances less `RADIUS`.
        """
        other = copy(self)
        pairs = zip(self._squares, cameras[:, 2:].tolist(), strict=True)
        other._squares = [square.reframed(*camera) for square, camera in pairs]
        return other

    def pictures(self, size: int | None = None) -> list[Picture]:
        """Pictures of the crops, of `size` pixels along one side; None for the size of the prior."""
        pairs = zip(self._objects, self._squares, strict=True)
        return [_crop(part, size or self._size, square) for part, square in pairs]

    def layers(self) -> list[Tensor]:
        """Colours in [-1, 1] on white and transparency in [0, 1], (4, h, w), of each object in its picture."""
        return [part.layers[0] for part in self._objects]

    def tangents(self, picture: int, points: Tensor) -> Tensor:
        """Tangents (N, 2), right and up, of the rays through points of the crop of a picture.

        Args:
            picture: index of the picture.
            points: (N, 2) in pixels from the left and from the top of `layers`.
        """
        square = self._squares[picture]
        across = (points - torch.tensor([square.x, square.y])) * (2 / square.side)
        return across * across.new_tensor([1.0, -1.0]) * math.tan(FIELD_OF_VIEW / 2)


def view_on_white(pixels: Tensor, name: str) -> Picture:
    """Picture of a view (3, S, S) in [-1, 1] that is already cut out and placed.

    Raises:
        UserError: the view shows no object.
    """
    if float(pixels.min()) > 1 - PLAIN:
        raise no_object(name)
    return Picture(pixels[None].detach().float().cpu(), True)


def check_distinct(views: Tensor, names: Sequence[str]) -> None:
    """Makes sure that no two of the views (n, 3, S, S) are the same.

    Raises:
        UserError: two views are the same.
    """
    for j in range(1, len(views)):
        for i in range(j):
            if torch.equal(views[i], views[j]):
                raise UserError(f"{names[j]} shows the same picture as {names[i]}; leave one of them out.")


def _opened(image: OneImage) -> tuple[Tensor, Tensor | None, float | None]:
    """Pixels (B, C, H, W) in [-1, 1], opacity (1, 1, H, W) in [0, 1], and the focal length in pixels.

    The last two are None if there is no transparency, and if the file does not say it.
    """
    source = open_image(image)
    file, (height, width) = source.file(0), source.pixels.shape[-2:]
    focal = focal_length(file.metadata.exif, width, height)
    if file.alpha is None:
        return source.pixels, None, focal
    opacity = file.alpha.astype(np.float32) / np.iinfo(file.alpha.dtype).max
    return source.pixels, torch.from_numpy(opacity)[None, None], focal


@dataclass(frozen=True)
class _CutOut:
    """An object cut out of a picture.

    Attributes:
        layers: (1, 4, h, w) colours of the picture on white, and the transparency in [0, 1]. Only the part that
            shows the object and its soft edge is stored, as many large pictures may be held at once.
        cut, how, sure, sketch: see `Picture`.
        frame: width and height of the whole picture.
        focal: focal length in pixels, if the file says it.
        top, bottom, left, right: pixel range of the object in `layers`, ends excluded.
        longest: longest side of the object in pixels.
    """

    layers: Tensor
    cut: bool
    how: str
    sure: bool
    sketch: Tensor | None
    frame: tuple[int, int]
    focal: float | None
    top: int
    bottom: int
    left: int
    right: int

    @property
    def longest(self) -> int:
        return max(self.bottom - self.top, self.right - self.left)


def _cut_out(image: OneImage, name: str, way: MaskLike) -> _CutOut:
    pixels, alpha, focal = _opened(image)
    if len(pixels) != 1:
        raise UserError(f"{name} holds {len(pixels)} images; give them one by one.")
    pixels = pixels.expand(-1, 3, -1, -1)
    found = opacity_of(pixels, alpha, way, name)
    cut, frame = found.how != "whole", (pixels.shape[-1], pixels.shape[-2])
    sketch = _sketch(pixels, found) if cut else None
    opacity = found.share
    if cut and focal is not None:
        top, bottom, left, right = _ends(opacity)
        middle, side = ((left + right) / 2, (top + bottom) / 2), max(bottom - top, right - left)
        turned = turned_towards(torch.cat([pixels, opacity], 1), focal, middle, side)
        if turned is not None:
            pixels, opacity = turned[:, :3], turned[:, 3:]
    top, bottom, left, right = _ends(opacity)
    rows, columns = slice(max(top - 1, 0), bottom + 1), slice(max(left - 1, 0), right + 1)
    shown, share = pixels[..., rows, columns], opacity[..., rows, columns]
    layers = torch.cat([share * (shown - 1) + 1, 1 - share], 1)
    ends = (top - rows.start, bottom - rows.start, left - columns.start, right - columns.start)
    return _CutOut(layers, cut, found.how, found.sure, sketch, frame, focal, *ends)


def _ends(opacity: Tensor) -> tuple[int, int, int, int]:
    """First row of an object and the one after its last, and the same of its columns."""
    seen = (opacity[0, 0] > SEEN).nonzero()
    (top, left), (bottom, right) = seen.min(0).values.tolist(), (seen.max(0).values + 1).tolist()
    return top, bottom, left, right


def _sketch(pixels: Tensor, found: Opacity) -> Tensor:
    """See `Picture`."""
    factor = min(1.0, SKETCH_SIDE / max(pixels.shape[-2:]))
    size = [max(1, round(side * factor)) for side in pixels.shape[-2:]]
    small, share = (F.interpolate(layer, size, mode="area")[0] for layer in (pixels, found.share))
    if found.how == "alpha":  # what is transparent may have any colour
        small = share * (small - 1) + 1
    faded = (1 + FADED * (small - 1)) * (1 - share) + small * share
    inside = (share > SEEN).float()
    inner = 1 - F.max_pool2d(1 - inside, 3, stride=1, padding=1)
    return torch.where(inside > inner, torch.tensor(OUTLINE)[:, None, None], faded)


@dataclass(frozen=True)
class _Square:
    """A square part of a picture, in pixels from its left and its top.

    Attributes:
        x, y: coordinates of the middle.
        side: height and width.
    """

    x: float
    y: float
    side: float

    def reframed(self, away: float, right: float, up: float) -> _Square:
        """The square that the camera would show from the distance `RADIUS`, with the origin in the middle.

        Args:
            away, right, up: distance less `RADIUS` and principal point of the camera of this square.
        """
        distance = RADIUS + away
        pixels = self.side / (2 * distance * math.tan(FIELD_OF_VIEW / 2))  # per world unit at that distance
        return _Square(self.x + right * pixels, self.y - up * pixels, self.side * RADIUS / distance)


def _crop(part: _CutOut, size: int, square: _Square) -> Picture:
    """The content of a square on white, resized to `size` pixels."""
    side, left, top = square.side, square.x - square.side / 2, square.y - square.side / 2
    height, width = part.layers.shape[-2:]
    over = [max(0, math.ceil(far)) for far in (-left, left + side - width, -top, top + side - height)]
    whole = F.pad(part.layers, over, value=1.0)[0]
    box = (left + over[0], top + over[2], left + over[0] + side, top + over[2] + side)
    # PIL resamples from fractions of pixels.
    layers = [Image.fromarray(layer.numpy()).resize((size, size), BILINEAR, box) for layer in whole]
    small = torch.from_numpy(np.stack([np.asarray(layer) for layer in layers]))
    mask = (1 - small[3]).clamp(0, 1) if part.cut else None
    angle = None if part.focal is None else field_of_view(part.focal, *part.frame)
    return Picture(small[None, :3].clamp(-1, 1), part.cut, mask, part.how, part.sure, angle, part.sketch)
