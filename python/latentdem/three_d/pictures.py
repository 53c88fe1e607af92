"""Photographs of an object made into what a view-conditioned prior knows: cut out, centred, on white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.measure import label
from torch import Tensor

from ..errors import UserError
from ..io.images import read_image, to_tensor
from .cameras import FIELD_OF_VIEW, RADIUS

FILLED = 0.75  # of a frame, by an object's longest side: as in the training renderings from distance `RADIUS`
SEEN = 0.5  # opacity from which a pixel belongs to the object
LEAST = 1e-3  # share of the pixels that an object has at least
EDGE_SHARE = 0.9  # of the outermost pixels that have one colour, where a background is plain
BILINEAR = Image.Resampling.BILINEAR
PLAIN, DIFFERENT = 0.08, 0.2  # differences of colour in units of [-1, 1]: still background, surely object


@dataclass(frozen=True)
class Picture:
    """A view for the prior.

    Attributes:
        pixels: (1, 3, S, S) float32 in [-1, 1] on white.
        cut: whether the object was told from its background; otherwise the whole picture is taken for it.
        mask: (S, S) in [0, 1], the share of each pixel that the object covers; None where it was not cut out
            here, because the whole picture is taken for it or it was on white before.
    """

    pixels: Tensor
    cut: bool
    mask: Tensor | None = None


class Crops:
    """Square crops of pictures of one object, cut out by the alpha channel or from a plain background.

    Pictures of one width and height are taken to be from one camera at one distance: the object is scaled by
    the same factor in all of them, so that its longest side in any takes `FILLED` of the frame. Otherwise each
    picture has a factor of its own. The middle of a crop is that of what is seen.

    Args:
        images: paths, PIL images (with or without transparency), arrays or tensors (1, C, H, W), as
            `io.to_tensor` takes them; of any size and shape.
        size: S.
        names: of the images in messages.

    Attributes:
        cut: whether the object was told from its background in all of them.

    Raises:
        UserError: unreadable, or there is no object in one of them.
    """

    def __init__(self, images: Sequence[Any], size: int, names: Sequence[str]) -> None:
        self._size = size
        self._found = [_found(image, name) for image, name in zip(images, names, strict=True)]
        self.cut = all(each.cut for each in self._found)
        sides = [each.longest / (FILLED if each.cut else 1) for each in self._found]
        if self.cut and len({each.frame for each in self._found}) == 1:
            sides = [max(sides)] * len(sides)
        middles = zip(self._found, sides, strict=True)
        self._squares = [
            _Square((each.left + each.right) / 2, (each.top + each.bottom) / 2, side) for each, side in middles
        ]

    def framed(self, cameras: Tensor) -> Crops:
        """Others of the same pictures: as seen from the distance `RADIUS`, with the origin in the middle.

        Args:
            cameras: (n, 5) that see these, less `RADIUS`.
        """
        other = copy(self)
        each = zip(self._squares, cameras[:, 2:].tolist(), strict=True)
        other._squares = [square.seen_by(*camera) for square, camera in each]
        return other

    def pictures(self) -> list[Picture]:
        """What they show."""
        each = zip(self._found, self._squares, strict=True)
        return [_shown(found, self._size, square) for found, square in each]


def view_on_white(pixels: Tensor, name: str) -> Picture:
    """A view (3, S, S) in [-1, 1] that is cut out and placed already.

    Raises:
        UserError: there is no object in it.
    """
    if float(pixels.min()) > 1 - PLAIN:
        raise _empty(name)
    return Picture(pixels[None].detach().float().cpu(), True)


def check_distinct(views: Tensor, names: Sequence[str]) -> None:
    """Refuses views (n, 3, S, S) of which two are the same.

    Raises:
        UserError: two are the same.
    """
    for j in range(1, len(views)):
        for i in range(j):
            if torch.equal(views[i], views[j]):
                raise UserError(f"{names[j]} shows the same picture as {names[i]}; leave one of them out.")


def _empty(name: str) -> UserError:
    return UserError(f"No object was found in {name}: it is empty; give a picture that shows the object.")


def _opened(image: Any) -> tuple[Tensor, Tensor | None]:
    """Pixels (B, C, H, W) in [-1, 1] and opacity (1, 1, H, W) in [0, 1], None without transparency."""
    if isinstance(image, (str, Path)):
        file = read_image(image)
        alpha = None if file.alpha is None else file.alpha.astype(np.float32) / np.iinfo(file.alpha.dtype).max
        pixels = file.pixels
    elif isinstance(image, Image.Image) and image.has_transparency_data:
        whole = np.asarray(image.convert("RGBA"))
        pixels, alpha = to_tensor(whole[..., :3]), whole[..., 3].astype(np.float32) / 255
    else:
        pixels, alpha = to_tensor(image), None
    return pixels, None if alpha is None else torch.from_numpy(alpha)[None, None]


@dataclass(frozen=True)
class _Found:
    """An object in a picture.

    Attributes:
        layers: (1, 4, h, w) the picture on white, and what is not the object, in [0, 1]; of the whole picture
            only what shows the object and its soft edge, as all pictures are kept.
        cut: see `Picture`.
        frame: width and height of the whole picture.
        top, bottom, left, right: of the pixels that it covers, the ends excluded.
        longest: its longest side.
    """

    layers: Tensor
    cut: bool
    frame: tuple[int, int]
    top: int
    bottom: int
    left: int
    right: int

    @property
    def longest(self) -> int:
        return max(self.bottom - self.top, self.right - self.left)


def _found(image: Any, name: str) -> _Found:
    pixels, alpha = _opened(image)
    if len(pixels) != 1:
        raise UserError(f"{name} holds {len(pixels)} images; give them one by one.")
    pixels = pixels.expand(-1, 3, -1, -1)
    if alpha is not None and float(alpha.min()) > SEEN:
        alpha = None  # nothing is cut away by it
    opacity = _from_plain_background(pixels) if alpha is None else alpha
    cut = opacity is not None
    opacity = torch.ones_like(pixels[:, :1]) if opacity is None else opacity
    if float((opacity > SEEN).float().mean()) < LEAST:
        raise _empty(name)
    seen = (opacity[0, 0] > SEEN).nonzero()
    (top, left), (bottom, right) = seen.min(0).values.tolist(), (seen.max(0).values + 1).tolist()
    rows, columns = slice(max(top - 1, 0), bottom + 1), slice(max(left - 1, 0), right + 1)
    shown, share = pixels[..., rows, columns], opacity[..., rows, columns]
    layers = torch.cat([share * (shown - 1) + 1, 1 - share], 1)
    ends = (top - rows.start, bottom - rows.start, left - columns.start, right - columns.start)
    return _Found(layers, cut, (pixels.shape[-1], pixels.shape[-2]), *ends)


def _from_plain_background(pixels: Tensor) -> Tensor | None:
    """Opacity (1, 1, H, W) where the frame shows one colour, None where it does not."""
    frame = torch.cat([pixels[0, :, 0], pixels[0, :, -1], pixels[0, :, :, 0], pixels[0, :, :, -1]], dim=1)
    colour = frame.median(dim=1).values
    if float(((frame - colour[:, None]).abs().amax(0) < PLAIN).float().mean()) < EDGE_SHARE:
        return None
    difference = (pixels - colour[:, None, None]).abs().amax(1, keepdim=True)
    opacity = ((difference - PLAIN) / (DIFFERENT - PLAIN)).clamp(0, 1)
    # Only what hangs together with the frame is background: the object may show its colour, too.
    regions = label((opacity < SEEN)[0, 0].numpy(), connectivity=1)
    outer = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    outside = np.isin(regions, outer[outer > 0])
    # The soft edge of the object reaches one pixel from the background inwards.
    near = F.max_pool2d(torch.from_numpy(outside).float()[None, None], 3, stride=1, padding=1) > 0
    return torch.where(near, opacity, 1.0)


@dataclass(frozen=True)
class _Square:
    """A part of a picture, in its pixels, counted from the left and from above.

    Attributes:
        x, y: its middle.
        side: its height and width.
    """

    x: float
    y: float
    side: float

    def seen_by(self, away: float, right: float, up: float) -> _Square:
        """What a camera would see at the distance `RADIUS`, with the origin in the middle.

        Args:
            away, right, up: distance less `RADIUS` and principal point of the camera that sees this.
        """
        distance = RADIUS + away
        pixels = self.side / (2 * distance * math.tan(FIELD_OF_VIEW / 2))  # for a unit of the world there
        return _Square(self.x + right * pixels, self.y - up * pixels, self.side * RADIUS / distance)


def _shown(found: _Found, size: int, square: _Square) -> Picture:
    """What a square shows, on white."""
    side, left, top = square.side, square.x - square.side / 2, square.y - square.side / 2
    height, width = found.layers.shape[-2:]
    over = [max(0, math.ceil(far)) for far in (-left, left + side - width, -top, top + side - height)]
    whole = F.pad(found.layers, over, value=1.0)[0]
    box = (left + over[0], top + over[2], left + over[0] + side, top + over[2] + side)
    # PIL resamples from fractions of pixels.
    layers = [Image.fromarray(layer.numpy()).resize((size, size), BILINEAR, box) for layer in whole]
    small = torch.from_numpy(np.stack([np.asarray(layer) for layer in layers]))
    mask = (1 - small[3]).clamp(0, 1) if found.cut else None
    return Picture(small[None, :3].clamp(-1, 1), found.cut, mask)
