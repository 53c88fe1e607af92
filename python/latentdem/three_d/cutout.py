"""Objects cut out of their pictures: by transparency, from a plain background, by GrabCut or by masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.measure import label
from torch import Tensor

from ..errors import UserError
from ..io.images import SUFFIXES
from ..io.masks import MaskLike, as_mask

WAYS = ("auto", "alpha", "plain", "grabcut")
CutoutLike: TypeAlias = MaskLike | Sequence[MaskLike]

SEEN = 0.5  # opacity above which a pixel belongs to the object
MIN_SHARE = 1e-3  # smallest share of the pixels that an object may cover
EDGE_SHARE = 0.9  # share of the outermost pixels that have one colour in front of a plain background
PLAIN, DIFFERENT = 0.08, 0.2  # colour differences on [-1, 1]: at most background, at least object
# GrabCut: its constants were chosen on the composed photographs of docs/research/three_d.md.
WORKING_SIDE = 320  # pixels along the longer side
ROUNDS = 5
EDGE = 0.1  # half-width of the frame that is background for certain, in units of half the side
STARTS = (0.3, 0.4, 0.5)  # radii of the ellipses that are assumed to be the object, in the same units
AGREEING = 0.3  # least IoU of the results of two starts, for an object
SURE = 0.7  # the same of all pairs of them, for a cut-out that is sure
CENTRAL = 0.5  # squared distance from the middle, in the same units, at which a region counts 1 / e


@dataclass(frozen=True)
class Opacity:
    """Where a picture shows the object.

    Attributes:
        share: (1, 1, H, W) in [0, 1], the share of each pixel that the object covers.
        how: "alpha", "plain", "grabcut" or "mask"; "whole" if nothing was cut away.
        sure: whether GrabCut found the same from different starts.
    """

    share: Tensor
    how: str
    sure: bool = True


def ways_of(cutout: CutoutLike, names: Sequence[str]) -> list[MaskLike]:
    """How each of several pictures is cut out: one of `WAYS`, or its mask.

    Args:
        cutout: one of `WAYS` for all pictures; a mask (see `as_mask`) for the only one; masks for all; or a
            folder with a mask for each picture, of the same name but for the ending.
        names: names of the pictures.

    Raises:
        UserError: a mask is missing, or their number is another.
    """
    if isinstance(cutout, str) and cutout in WAYS:
        return [cutout] * len(names)
    if isinstance(cutout, (str, Path)):
        path = Path(cutout)
        if path.is_dir():
            return [_mask_in(path, name) for name in names]
        if not path.exists():
            raise UserError(
                f"No way '{cutout}' to cut out objects; give one of {', '.join(WAYS)}, the file of a mask or "
                "the folder of masks."
            )
    masks: list[Any] = list(cutout) if isinstance(cutout, (list, tuple)) else [cutout]
    if len(masks) != len(names):
        raise UserError(
            f"The number of masks is {len(masks)}, that of pictures {len(names)}; give a mask for each, or a "
            "folder with masks of the same names."
        )
    return masks


def _mask_in(folder: Path, name: str) -> Path:
    stem = Path(name).stem
    found = [path for path in sorted(folder.iterdir()) if path.stem == stem and path.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"There is no mask for {name} in {folder}; give one, for instance {stem}.png.")
    return found[0]


def opacity_of(pixels: Tensor, alpha: Tensor | None, way: MaskLike, name: str) -> Opacity:
    """Where a picture shows its object.

    "auto" is transparency, where there is some; a plain background, where there is one; and otherwise GrabCut,
    if OpenCV is installed, or else the whole picture.

    Args:
        pixels: (1, 3, H, W) in [-1, 1].
        alpha: (1, 1, H, W) in [0, 1]; None without transparency.
        way: one of `WAYS`, or a mask.
        name: name of the picture in messages.

    Raises:
        UserError: the picture shows no object, or cannot be cut out this way.
    """
    if alpha is not None and float(alpha.min()) > SEEN:
        alpha = None  # it cuts nothing away
    found: Opacity | None
    if not (isinstance(way, str) and way in WAYS):
        found = Opacity(as_mask(way, *pixels.shape[-2:]), "mask")
    elif way == "grabcut":
        found = _grabcut(pixels, name)
    else:
        found = Opacity(alpha, "alpha") if alpha is not None and way != "plain" else None
        if found is None and way != "alpha":
            found = _from_plain_background(pixels)
        if found is None and way != "auto":
            lack = "transparent part" if way == "alpha" else "background of one colour"
            raise UserError(f"{name} has no {lack}; choose another way with --cutout, such as a mask.")
        if found is None and find_spec("cv2") is not None:
            found = _grabcut(pixels, name)
        found = found or Opacity(torch.ones_like(pixels[:, :1]), "whole")
    if float((found.share > SEEN).float().mean()) < MIN_SHARE:
        raise no_object(name)
    return found


def no_object(name: str) -> UserError:
    """The error of a picture that is empty."""
    return UserError(f"No object was found in {name}: it is empty; give a picture that shows the object.")


def _from_plain_background(pixels: Tensor) -> Opacity | None:
    """What differs from the background; None if the outermost pixels differ."""
    frame = torch.cat([pixels[0, :, 0], pixels[0, :, -1], pixels[0, :, :, 0], pixels[0, :, :, -1]], dim=1)
    colour = frame.median(dim=1).values
    if float(((frame - colour[:, None]).abs().amax(0) < PLAIN).float().mean()) < EDGE_SHARE:
        return None
    difference = (pixels - colour[:, None, None]).abs().amax(1, keepdim=True)
    opacity = ((difference - PLAIN) / (DIFFERENT - PLAIN)).clamp(0, 1)
    # Only regions connected to the frame are background: the object may have the same colour, too.
    regions = label((opacity < SEEN)[0, 0].numpy(), connectivity=1)
    outer = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    outside = np.isin(regions, outer[outer > 0])
    # The soft edge of the object extends one pixel inwards from the background.
    near = F.max_pool2d(torch.from_numpy(outside).float()[None, None], 3, stride=1, padding=1) > 0
    return Opacity(torch.where(near, opacity, 1.0), "plain")


def _grabcut(pixels: Tensor, name: str) -> Opacity:
    """The central region that GrabCut separates from the frame (Rother, Kolmogorov and Blake 2004).

    It is run from ellipses of several sizes around the middle, and most of the results decide about a pixel.

    Raises:
        UserError: OpenCV is missing, or the results have nothing in common, as without an object.
    """
    if find_spec("cv2") is None:
        raise UserError("GrabCut needs OpenCV; install with: pip install opencv-python-headless.")
    import cv2

    height, width = pixels.shape[-2:]
    factor = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = F.interpolate(pixels, size, mode="area")[0].movedim(0, -1)
    picture = ((small + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
    down, right = (((np.arange(side) + 0.5) / side * 2 - 1) for side in size)
    away = down[:, None] ** 2 + right**2
    edge = np.maximum(np.abs(down)[:, None], np.abs(right)) > 1 - EDGE
    results = []
    for radius in STARTS:
        mask = np.where(away < radius**2, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        mask[edge] = cv2.GC_BGD
        cv2.setRNGSeed(0)
        back, front = np.zeros((1, 65)), np.zeros((1, 65))  # OpenCV's models of the colours
        cv2.grabCut(picture, mask, (0, 0, 0, 0), back, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
        results.append(_central(mask == cv2.GC_PR_FGD, away))
    pairs = [_overlap(a, b) for i, a in enumerate(results) for b in results[:i]]
    if max(pairs) < AGREEING:
        raise UserError(
            f"No object stands out from the background of {name}; take it in front of another one, or give a "
            "mask with --cutout."
        )
    found = _central(np.mean(results, 0) > 0.5, away)
    share = F.interpolate(torch.from_numpy(found).float()[None, None], (height, width), mode="bilinear")
    return Opacity(share, "grabcut", min(pairs) >= SURE)


def _overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 0 if both are empty."""
    return float((first & second).sum() / max((first | second).sum(), 1))


def _central(mask: NDArray[np.bool_], away: NDArray[np.floating]) -> NDArray[np.bool_]:
    """The largest region (H, W) of a mask, without holes, where pixels count less away from the middle."""
    from scipy.ndimage import binary_fill_holes, binary_opening

    regions = label(binary_opening(mask, np.ones((3, 3))), connectivity=1)
    weights = np.bincount(regions.ravel(), np.exp(-away / CENTRAL).ravel())
    if len(weights) < 2:
        return np.zeros_like(mask)
    filled: NDArray[np.bool_] = binary_fill_holes(regions == 1 + weights[1:].argmax())
    return filled
