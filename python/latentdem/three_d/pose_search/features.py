"""Local features matched between the pictures of an object, as evidence of the cameras that took them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..geometry.cameras import OBJECT_RADIUS, POLAR_RANGE, RADIUS, camera_axes

SMALL, LARGE = 256, 1024  # smaller pictures are enlarged and larger ones reduced to these sides
CONTRAST, EDGES = 0.01, 20  # thresholds of SIFT, more permissive than its defaults: geometry sorts the matches
DISTINCT = 0.85  # the nearest descriptor must be nearer than this share of the distance to the second nearest
MOST = 200  # matches of two pictures, the most distinct ones
INNER = 3  # pixels next to the outline without features
TOLERANCE = 0.009  # standard deviation of the gap between the rays of a match, in world units
GAIN = 4.0  # how much more likely a gap of 0 is than that of a wrong match
BORDER = 0.02  # how gradually matches beyond the sphere of the object stop counting, in world units
# The hypothesis: a grid around the polar angles that the prior estimates, then steps of Adam.
AZIMUTHS, POLARS = 72, (-0.35, -0.17, 0.0, 0.17, 0.35)  # polar angles in radians
GRID = 2.0  # factor of the tolerance on the grid
COARSE = 3.0  # the same at the first step; the last one has nearly 1
STARTS, STEPS, RATE = 8, 60, 0.02
APART = math.radians(15)  # smallest difference between the azimuths of two starts
KNOWN = (0.17, 0.1, 0.03)  # standard deviations of polar angles, distances and principal points as estimated
SUPPORT = 30.0  # least evidence of some pose for matches to count; wrong poses have up to 20

Pair = tuple[int, int]
Floats = NDArray[np.float32]
Tangents = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class FeatureMatches:
    """Matches of local features between pictures, most of which may be wrong.

    Attributes:
        points: (N, 4) for each pair of pictures (i, j), i < j, with any matches: the tangents right and up of
            the ray in picture i and of that in picture j.
    """

    points: dict[Pair, Tensor]

    @classmethod
    def of(cls, layers: Sequence[Tensor]) -> FeatureMatches:
        """Matches of pictures, in pixels from their left and their top instead of as tangents.

        Features are those of Lowe 2004 (SIFT), compared by the square roots of their entries (Arandjelovic and
        Zisserman 2012); both must be each other's nearest.

        Args:
            layers: (4, h, w) of each picture, see `Crops.layers`.
        """
        if find_spec("cv2") is None:  # an extra
            return cls({})
        found, points = [_features(layer) for layer in layers], {}
        for i, j in combinations(range(len(found)), 2):
            first, second = _nearest(found[i][1], found[j][1])
            if len(first):
                both = np.concatenate([found[i][0][first], found[j][0][second]], 1)
                points[i, j] = torch.from_numpy(both).float()
        return cls(points)

    def seen(self, tangents: Tangents) -> FeatureMatches:
        """The same as tangents of rays, by a function of the picture and of points (N, 2) in it."""
        points = {
            (i, j): torch.cat([tangents(i, both[:, :2]), tangents(j, both[:, 2:])], 1)
            for (i, j), both in self.points.items()
        }
        return FeatureMatches(points)

    def agreeing(self, tangents: Tangents, polar: Tensor) -> FeatureMatches:
        """Only the matches of pairs most of which may be right: some pose has the evidence `SUPPORT`.

        Args:
            tangents: see `seen`.
            polar: (n,) polar angles of the pictures that the prior estimates.
        """
        points = {}
        for (i, j), both in self.seen(tangents).points.items():
            if len(both) * math.log1p(GAIN) >= SUPPORT:
                best = _supports(both, _grid(polar[[i, j]].cpu().float(), False)).max()
                if float(best) >= SUPPORT:
                    points[i, j] = self.points[i, j]
        return FeatureMatches(points)

    def evidence(self, first: Tensor, second: Tensor, cameras: Tensor) -> Tensor:
        """By how much the matches make cameras of pairs of views more likely than others, in nats, (R,).

        The rays of a true match meet at a point of the object. A match adds the logarithm of 1 + `GAIN` times a
        normal density of the gap, the distance of two lines, if they are nearest in the sphere of the object.
        So wrong matches, which are the most, add nothing. Differentiable in the cameras.

        Args:
            first, second: (R,) indices of views.
            cameras: (R, 2, 3) or (R, 2, 5) cameras of both views with absolute polar angles; their distances
                are less `RADIUS`.
        """
        found = torch.zeros(len(cameras), dtype=cameras.dtype)
        for (i, j), both in self.points.items():
            for swapped, (one, other) in enumerate(((i, j), (j, i))):
                rows = ((first == one) & (second == other)).cpu().nonzero()[:, 0]
                if len(rows):
                    some = cameras[rows.to(cameras.device)].cpu()
                    some = some.flip(1) if swapped else some
                    found = found.index_add(0, rows, _support(both.to(some), some, 1.0))
        return found.to(cameras.device)

    def hypothesis(self, view: int, polar: Tensor, principal: bool) -> Tensor | None:
        """Cameras (2, 3) or (2, 5) of view 1 and another one that most of their matches agree with.

        Args:
            view: the other view.
            polar: (2,) polar angles of both that the prior estimates.
            principal: whether the principal points and the distances are unknown, too.

        Returns:
            None without matches between them.
        """
        both = self.points.get((0, view))
        if both is None:
            return None
        both, polar = both.double(), polar.double().cpu()
        cameras = _grid(polar, principal)
        moved = _climb(both, cameras[_spread(cameras[:, 1, 1], _supports(both, cameras))], polar)
        return moved[int(_support(both, moved, 1.0).argmax())].float()


def _features(layers: Tensor) -> tuple[Floats, Floats]:
    """Positions (N, 2) and descriptors (N, 128) of the features of a picture, see `FeatureMatches.of`."""
    import cv2

    side = max(layers.shape[1:])
    factor = max(SMALL / side, 1.0) * min(LARGE / side, 1.0)
    size = [max(1, round(length * factor)) for length in layers.shape[1:]]
    mode = {"mode": "area"} if factor < 1 else {"mode": "bicubic", "align_corners": False}
    small = F.interpolate(layers[None], size, **mode)[0]
    colours = small[:3].mul(0.5).add(0.5).clamp(0, 1).mul(255).byte().permute(1, 2, 0).contiguous().numpy()
    mask = cv2.erode((small[3] < 0.5).byte().numpy(), np.ones((INNER, INNER), np.uint8))
    sift = cv2.SIFT.create(contrastThreshold=CONTRAST, edgeThreshold=EDGES)
    points, descriptors = sift.detectAndCompute(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), mask)
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    # The middle of the first pixel is 0 for OpenCV and 0.5 for everything else.
    scale = np.array([layers.shape[2] / size[1], layers.shape[1] / size[0]])
    places = (np.array([point.pt for point in points]) + 0.5) * scale
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
    return places.astype(np.float32), roots.astype(np.float32)


def _nearest(one: Floats, other: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (N,) and (N,) of descriptors (A, 128) and (B, 128) that are each other's nearest and distinct."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    distances = torch.cdist(torch.from_numpy(one), torch.from_numpy(other))
    two, indices = distances.topk(2, dim=1, largest=False)
    back = distances.argmin(0)
    rows = torch.arange(len(one))
    ratio = two[:, 0] / two[:, 1].clamp_min(1e-9)
    kept = ((ratio < DISTINCT) & (back[indices[:, 0]] == rows)).nonzero()[:, 0]
    kept = kept[ratio[kept].argsort(stable=True)[:MOST]]
    return kept.numpy(), indices[kept, 0].numpy()


def _support(both: Tensor, cameras: Tensor, widened: float) -> Tensor:
    """`FeatureMatches.evidence` (R,) of matches (N, 4) for cameras (R, 2, C) of their pictures.

    Args:
        both, cameras: see above.
        widened: factor of the tolerance.
    """
    origins, rays = zip(*(_rays(both[:, 2 * k : 2 * k + 2], cameras[:, k]) for k in (0, 1)), strict=True)
    between = origins[0] - origins[1]
    cosine = (rays[0] * rays[1]).sum(-1)
    along = [(ray * between).sum(-1) for ray in rays]
    sine = (1 - cosine.square()).clamp_min(1e-6)
    ends = (
        origins[0] + ((cosine * along[1] - along[0]) / sine)[..., None] * rays[0],
        origins[1] + ((along[1] - cosine * along[0]) / sine)[..., None] * rays[1],
    )
    gap = (ends[0] - ends[1]).square().sum(-1)
    outside = (ends[0] + ends[1]).norm(dim=-1) / 2 - OBJECT_RADIUS
    meeting = torch.exp(-0.5 * gap / (widened * TOLERANCE) ** 2) * torch.sigmoid(-outside / BORDER)
    return torch.log1p(GAIN * meeting).sum(1)


def _grid(polar: Tensor, principal: bool) -> Tensor:
    """Cameras (G, 2, 3) or (G, 2, 5) of view 1 and another one around polar angles (2,) estimated for both."""
    turns = torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS) - math.pi
    offsets = torch.tensor(POLARS)
    rows = torch.cartesian_prod(offsets, offsets, turns).to(polar)
    cameras = rows.new_zeros(len(rows), 2, 5 if principal else 3)
    cameras[:, :, 0] = (polar + rows[:, :2]).clamp(*POLAR_RANGE)
    cameras[:, 1, 1] = rows[:, 2]
    return cameras


def _supports(both: Tensor, cameras: Tensor) -> Tensor:
    """Evidence (G,) on a grid of cameras (G, 2, C), whose tolerance is that of the grid."""
    return torch.cat([_support(both, part, GRID) for part in cameras.split(512)])


def _rays(tangents: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Origins (R, 1, 3) and directions (R, N, 3) of the rays at tangents (N, 2) of cameras (R, C)."""
    distance = RADIUS + cameras[:, 2]
    position, right, up, forward = camera_axes(torch.cat([cameras[:, :2], distance[:, None]], 1))
    across = tangents.expand(len(cameras), -1, -1)
    if cameras.shape[1] > 3:
        across = across - (cameras[:, 3:] / distance[:, None])[:, None]
    rays = forward[:, None] + across[..., :1] * right[:, None] + across[..., 1:] * up[:, None]
    return position[:, None], F.normalize(rays, dim=-1)


def _spread(azimuths: Tensor, supported: Tensor) -> list[int]:
    """Indices of the best supported of azimuths (R,) that are far from each other."""
    chosen: list[int] = []
    for row in supported.argsort(descending=True).tolist():
        if all(abs(math.remainder(float(azimuths[row] - azimuths[k]), 2 * math.pi)) > APART for k in chosen):
            chosen.append(row)
        if len(chosen) == STARTS:
            break
    return chosen


def _climb(both: Tensor, cameras: Tensor, polar: Tensor) -> Tensor:
    """Cameras (S, 2, C) moved to where matches (N, 4) and estimates agree; the first azimuth and distance stay.

    Seen from far away, two pictures leave a family of poses (Koenderink and van Doorn 1991); the polar angles
    (2,) that the prior estimates, and that principal points and distances are near 0, decide within it.
    """
    free = torch.ones_like(cameras[0])
    free[0, 1:3] = 0
    free[:, 2] *= float(cameras.shape[2] > 3)
    free[:, 3:] *= 0.3  # better known, so smaller steps
    offset = torch.zeros_like(cameras).requires_grad_()
    optimizer = torch.optim.Adam([offset])
    with torch.enable_grad():
        for step in range(STEPS):
            left = 1 - step / STEPS
            moved = cameras + free * offset
            groups = (moved[..., 0] - polar, moved[..., 2], moved[..., 3:])
            known = [(group / spread).square().sum() / 2 for group, spread in zip(groups, KNOWN, strict=True)]
            loss = torch.stack(known).sum() - _support(both, moved, 1 + (COARSE - 1) * left).sum()
            (offset.grad,) = torch.autograd.grad(loss, [offset])
            optimizer.param_groups[0]["lr"] = RATE * left
            optimizer.step()
    moved = (cameras + free * offset).detach()
    moved[..., 0] = moved[..., 0].clamp(*POLAR_RANGE)
    return moved
