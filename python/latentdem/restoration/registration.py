"""The rotation and the shift between restorations of one scene, and photographs moved by them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from skimage.filters import difference_of_gaussians, window
from skimage.measure import ransac
from skimage.registration import phase_cross_correlation
from skimage.transform import EuclideanTransform, warp
from torch import Tensor

from ..errors import UserError

_SIGMAS = 1.0, 8.0  # pixels; of the band of details that are compared
_PARTS = 5  # parts a side, each with a shift of its own
_PART_SHARE = 0.4  # of the smaller side
_LEAST_PART = 32  # pixels a side
_SUBPIXEL = 20  # steps per pixel
_AGREE = 0.75  # pixels; shifts of parts that are nearer than this to one motion agree with it
_LEAST_AGREEING = 0.5  # of the parts; fewer are no registration
_LEAST_ALIKE = 0.3  # normalised correlation of the details; 0.6 and more for restorations of one scene
_KNOWN = 0.8  # least share of a part that both images show
_TRIALS = 300
_ROUNDS = 2  # the second on the registered image, whose parts overlap better


def motion_between(image: Tensor, reference: Tensor) -> EuclideanTransform:
    """The rotation and translation that lead from a pixel (x, y) of the reference to that of the image.

    The phase correlation of both says how far they are apart, those of parts how far there, and the motion that
    most of the parts agree with is taken (RANSAC).

    Args:
        image: (1, C, H, W), sharp but for artefacts.
        reference: (1, C, H, W) another restoration of the same scene.

    Raises:
        UserError: less than half of the parts agree with any motion, or the images are not alike after it.
    """
    fixed = _details(reference)
    found: EuclideanTransform | None
    motion = EuclideanTransform(translation=_shift(fixed, _details(image), 1))
    for _ in range(_ROUNDS):
        places, shifts = _shifts_of_parts(fixed, *_moved_details(image, motion))
        found = _consensus(places, places + shifts)
        if found is None:
            break
        # A pixel of the reference leads to one of the moved image, and that to one of the image.
        motion = found + motion
    if found is None or _likeness(fixed, *_moved_details(image, motion)) < _LEAST_ALIKE:
        raise UserError(
            "The photographs cannot be registered: they do not show one scene moved by a shift and a "
            "rotation; leave out those of other scenes."
        )
    return motion


def moved_back(photographs: Tensor, motion: EuclideanTransform) -> Tensor:
    """Photographs (B, C, H, W) seen from where the reference was: at p they have what they had at motion(p).

    What lies beyond their frame is the nearest pixel.
    """
    moved = [_warped(one, motion, 3, "edge") for one in photographs.flatten(0, 1)]
    return torch.stack(moved).view_as(photographs)


def central_motion(motion: EuclideanTransform, height: int, width: int) -> tuple[float, tuple[float, float]]:
    """The angle of a motion in degrees, clockwise, and the shift (down, right) of the middle of the image."""
    centre = np.array([[(width - 1) / 2, (height - 1) / 2]])
    right, down = (motion(centre) - centre)[0]
    return float(np.rad2deg(motion.rotation)), (float(down), float(right))


def _moved_details(image: Tensor, motion: EuclideanTransform) -> tuple[np.ndarray, np.ndarray]:
    """The details of an image as the reference would show them, and where they are known, (H, W) each."""
    known = moved_mask(torch.ones_like(image[:1, :1]), motion)
    return _details(moved_back(image, motion)), known[0, 0].cpu().numpy()


def _likeness(fixed: np.ndarray, moved: np.ndarray, known: np.ndarray) -> float:
    """Normalised correlation of details where they are known; 0 where there are none."""
    a, b = fixed[known > 0], moved[known > 0]
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-12))


def moved_mask(mask: Tensor, motion: EuclideanTransform) -> Tensor:
    """A mask (1, 1, H, W) as `moved_back` moves its photograph; pixels that others enter do not count."""
    return (_warped(mask[0, 0], motion, 1, "constant") > 1 - 1e-3).to(mask)[None, None]


def _warped(channel: Tensor, motion: EuclideanTransform, order: int, mode: str) -> Tensor:
    moved = warp(channel.double().cpu().numpy(), motion, order=order, mode=mode, preserve_range=True)
    return torch.from_numpy(moved).to(channel)


def _details(image: Tensor) -> np.ndarray:
    """The details (H, W) of an image between the finest and the coarse ones, at which scenes are recognised."""
    grey = image[0].double().mean(0).cpu().numpy()
    return np.asarray(difference_of_gaussians(grey, *_SIGMAS))


def _shift(fixed: np.ndarray, moving: np.ndarray, steps: int) -> np.ndarray:
    """By how many pixels (x, y) the contents of `moving` lie further than those of `fixed`."""
    taper = window("hann", fixed.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts without any detail, whose shift is no number
        shift, _, _ = phase_cross_correlation(
            fixed * taper, moving * taper, upsample_factor=steps, normalization=None
        )
    return -np.asarray(shift)[::-1]


def _shifts_of_parts(fixed: np.ndarray, moving: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 2) of the parts that both show and their shifts (N, 2), in pixels (x, y)."""
    side = min(max(int(_PART_SHARE * min(fixed.shape)), _LEAST_PART), *fixed.shape)
    places, shifts = [], []
    tops, lefts = (np.linspace(0, n - side, _PARTS).astype(int) for n in fixed.shape)
    for top in np.unique(tops):
        for left in np.unique(lefts):
            part = slice(top, top + side), slice(left, left + side)
            if known[part].mean() > _KNOWN:
                places.append((left + (side - 1) / 2, top + (side - 1) / 2))
                shifts.append(_shift(fixed[part], moving[part], _SUBPIXEL))
    return np.array(places).reshape(-1, 2), np.array(shifts).reshape(-1, 2)


def _consensus(source: np.ndarray, target: np.ndarray) -> EuclideanTransform | None:
    """The motion from source to target points (N, 2) that most agree with; None where less than half do."""
    usable = np.isfinite(target).all(1)
    if usable.sum() < 3:
        return None
    motion, agree = ransac(
        (source[usable], target[usable]),
        EuclideanTransform,
        min_samples=2,
        residual_threshold=_AGREE,
        max_trials=_TRIALS,
        rng=0,
    )
    return None if motion is None or agree.mean() < _LEAST_AGREEING else motion
