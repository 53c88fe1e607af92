"""Solid textures: two colours mixed by a pattern in the coordinates of a part."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Pattern = Callable[[Floats], Floats]
SOFTNESS = 6.0  # steepness of the edges of a pattern: they are about two pixels wide at 64 x 64


@dataclass(frozen=True)
class Texture:
    """Two colours mixed by a pattern.

    Attributes:
        colours: (2, 3) in [0, 1].
        pattern: maps points (N, 3) of a part to the share (N,) in [0, 1] of the second colour.
    """

    colours: Floats
    pattern: Pattern

    def __call__(self, points: Floats) -> Floats:
        """Colours (N, 3) in [0, 1] at `points` (N, 3)."""
        share = self.pattern(points)[:, None]
        return (1 - share) * self.colours[0] + share * self.colours[1]


def random_colour(rng: np.random.Generator) -> Floats:
    """A colour (3,) in [0, 1] that differs from the white background."""
    saturation = rng.choice([rng.uniform(0.55, 1.0), rng.uniform(0.0, 0.3)], p=[0.8, 0.2])
    value = rng.uniform(0.5, 1.0) if saturation > 0.3 else rng.uniform(0.15, 0.8)
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), saturation, value))


def _soft(wave: Floats) -> Floats:
    return np.clip(0.5 + SOFTNESS * wave, 0, 1)


def _direction(rng: np.random.Generator) -> Floats:
    """A random direction (3,), with probability 0.7 one of the axes."""
    vector = np.eye(3)[rng.integers(3)] if rng.uniform() < 0.7 else rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _plain(rng: np.random.Generator) -> Pattern:
    return lambda points: np.zeros(len(points))


def _gradient(rng: np.random.Generator) -> Pattern:
    along = _direction(rng)
    return lambda points: np.clip(0.5 + 0.5 * points @ along, 0, 1)


def _halves(rng: np.random.Generator) -> Pattern:
    along, offset = _direction(rng), rng.uniform(-0.3, 0.3)
    return lambda points: _soft(points @ along - offset)


def _stripes(rng: np.random.Generator) -> Pattern:
    along, frequency, phase = _direction(rng), rng.uniform(2.5, 7.0), rng.uniform(0, 2 * np.pi)
    return lambda points: _soft(np.sin(frequency * (points @ along) + phase))


def _checks(rng: np.random.Generator) -> Pattern:
    frequency, phase = rng.uniform(2.5, 5.0), rng.uniform(0, np.pi, 3)
    return lambda points: _soft(np.sin(frequency * points + phase).prod(1))


def _noise(rng: np.random.Generator) -> Pattern:
    waves, phases = rng.normal(size=(3, 6)) * rng.uniform(2.0, 4.5), rng.uniform(0, 2 * np.pi, 6)
    soft = rng.uniform(0.3, 2.0)
    return lambda points: np.clip(0.5 + soft * np.sin(points @ waves + phases).sum(1) / 2.4, 0, 1)


PATTERNS = (_plain, _gradient, _halves, _stripes, _checks, _noise)
SHARES = (0.3, 0.15, 0.15, 0.15, 0.1, 0.15)


def random_texture(rng: np.random.Generator) -> Texture:
    """A random pattern of two random colours."""
    make = PATTERNS[rng.choice(len(PATTERNS), p=SHARES)]
    return Texture(np.stack([random_colour(rng), random_colour(rng)]), make(rng))
