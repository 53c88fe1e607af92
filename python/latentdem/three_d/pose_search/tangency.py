"""Cameras under which the outlines of an object agree.

A plane through the positions of two cameras that touches the object touches its outline in both pictures
(epipolar tangency: Porrill and Pollard 1991; Cipolla, Astrom and Giblin 1995). Each pair of pictures has two
such planes, above and below the object, whatever its shape. They say what no network sees as exactly: from how
high it was pictured, and where a crop has its middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.cameras import POLAR_RANGE, RADIUS, camera_axes, pixel_grid
from ..geometry.poses import PosePosterior
from ..pictures import Crops, Picture

PRECISION = 0.008  # standard deviation of a plane at the object in world units: a third of a pixel of 64
ROUGHLY = 0.03  # the same where GrabCut found an outline: more than a pixel of 64
FINE = 256  # pixels along one side in which an outline is found
CROPPED = 0.05  # standard deviation of the distance and of the principal point of a crop, in world units
FAINTEST = 0.06  # difference from white below which a pixel is not of the object
SHORTEST = 0.2  # distance of two cameras below which the planes through both are not determined
IN_FRONT = 0.05  # least depth of the object as seen from the line through both cameras
DIRECTIONS = 360  # of the lines that touch an outline
ROUNDS = 12
HALVINGS = 5
CONVERGED = 0.01  # decrease of the sum of squares below which the search ends
FARTHEST = 3.0  # standard deviations beyond which outlines are not believed, as one may be cut off or wrong


@dataclass(frozen=True)
class Freedom:
    """How far cameras may move: standard deviations of what is estimated, 0 for what is known.

    Attributes:
        height: polar angle of all cameras together, in radians.
        pose: polar angle and azimuth of each camera but the first, in radians.
        distance: distance of each camera, in world units.
        principal: principal point of each camera, in world units at the distance of the origin.
    """

    height: float = math.radians(8)
    pose: float = 0.0
    distance: float = 0.0
    principal: float = 0.0

    def scales(self, views: int) -> Tensor:
        """Standard deviations (views, 5) of the changes of cameras; that of the first polar angle is of all."""
        row = torch.tensor([self.pose, self.pose, self.distance, self.principal, self.principal])
        scales = row.repeat(views, 1)
        scales[0, :2] = torch.tensor([self.height, 0.0])
        return scales


POSES_GIVEN, POSES_FOUND = Freedom(), Freedom(pose=math.radians(5))


def agree(
    pictures: Sequence[Picture], crops: Crops | None, posterior: PosePosterior, freedom: Freedom
) -> tuple[Crops | None, PosePosterior]:
    """Crops and cameras under which the outlines agree.

    They are as they were if the object is not cut out or nowhere opaque, or if cameras would move too far.

    Args:
        pictures: n pictures.
        crops: the crops that they are, which are moved and scaled; None if the middle of each is known.
        posterior: cameras (B, n, 3) of the pictures, which all move as the most likely ones do.
        freedom: how far they may move, apart from the crops.
    """
    if len(pictures) < 2 or not all(picture.cut for picture in pictures):
        return crops, posterior
    if crops is not None:
        pictures, freedom = crops.pictures(FINE), replace(freedom, distance=CROPPED, principal=CROPPED)
    outlines = [outline_of(picture) for picture in pictures]
    if not all(len(outline) for outline in outlines):
        return crops, posterior
    precision = ROUGHLY if any(picture.how == "grabcut" for picture in pictures) else PRECISION
    cameras = agreeing(outlines, posterior.cameras[0], freedom, precision)
    if cameras is None:
        return crops, posterior
    change = cameras[:, :2] - posterior.cameras[0, :, :2]
    moved = posterior.cameras + F.pad(change, (0, 1))
    return crops and crops.framed(cameras.cpu()), replace(posterior, cameras=moved)


def outline_of(picture: Picture) -> Tensor:
    """Tangents (N, 2), right and up, of the rays along the outline of an object, where it is convex.

    A plane can touch it nowhere else. N is 0 if the object is nowhere opaque.
    """
    share = picture.mask
    if share is None:  # on white: opaque where it is as dark as its surroundings
        ink = ((1 - picture.pixels.float()) / 2).amax(1)
        share = (ink / F.max_pool2d(ink, 5, 1, 2).clamp_min(2 * FAINTEST))[0].cpu()
    fine = F.interpolate(share[None, None], (FINE, FINE), mode="bilinear", align_corners=False)
    inside = (fine >= 0.5).float()
    edge = (inside > 1 - F.max_pool2d(1 - inside, 3, 1, 1))[0, 0]
    across, upwards = pixel_grid(FINE)
    points = torch.stack([across[edge], upwards[edge]], 1)
    turn = torch.arange(DIRECTIONS, dtype=points.dtype) * (2 * math.pi / DIRECTIONS)
    if not len(points):
        return points
    return points[(points @ torch.stack([turn.cos(), turn.sin()])).argmax(0).unique()]


def agreeing(
    outlines: Sequence[Tensor], cameras: Tensor, freedom: Freedom, precision: float = PRECISION
) -> Tensor | None:
    """Cameras (n, 5) near the given ones under which the outlines agree; None if one moves by `FARTHEST`.

    Gauss-Newton minimises the squares of what the touching planes of all pairs are apart, over `precision`, and
    of the changes, over their standard deviations. Pairs without such planes, as one camera is before or behind
    the other, have no say.

    Args:
        outlines: n outlines (N, 2), see `outline_of`.
        cameras: (n, 3) or (n, 5), with distances less `RADIUS`.
        freedom: how far they may move.
        precision: standard deviation of a plane at the object, in world units.
    """
    start = F.pad(cameras, (0, 5 - cameras.shape[-1])).double().cpu()
    scales = freedom.scales(len(start)).double()

    def moved(change: Tensor) -> Tensor:
        change = change.view_as(start) * scales
        together = change[:1, :1].expand(len(start), 1)
        own = torch.cat([torch.zeros_like(change[:1, :1]), change[1:, :1]])
        return start + torch.cat([together + own, change[:, 1:]], 1)

    def residuals(change: Tensor) -> Tensor:
        return torch.cat([disagreement(outlines, moved(change)) / precision, change])

    change = torch.zeros(start.numel(), dtype=torch.float64)
    cost = float(residuals(change).square().sum())
    for _ in range(ROUNDS):
        jacobian = torch.autograd.functional.jacobian(residuals, change, vectorize=True)
        step = torch.linalg.lstsq(jacobian, residuals(change)[:, None]).solution[:, 0]
        others = [change - step / 2**halving for halving in range(HALVINGS)]
        before = cost
        for other in others:
            if (lower := float(residuals(other).square().sum())) < cost:
                change, cost = other, lower
                break
        if before - cost < CONVERGED:
            break
    if change.abs().max() > FARTHEST:
        return None
    found = moved(change)
    found[:, 0] = found[:, 0].clamp(*POLAR_RANGE)
    return found.to(cameras)


def disagreement(outlines: Sequence[Tensor], cameras: Tensor) -> Tensor:
    """How far apart the touching planes of both outlines of each pair are at the object, in world units.

    Args:
        outlines: n outlines (N, 2), see `outline_of`.
        cameras: (n, 5), float64, with distances less `RADIUS`.

    Returns:
        (2 n (n - 1) / 2,), 0 for pairs that have no such planes.
    """
    placed = cameras + cameras.new_tensor([0, 0, RADIUS, 0, 0])
    position, right, up, forward = camera_axes(placed)
    principal = placed[:, 3:] / placed[:, 2:3]
    rays = []
    for i, outline in enumerate(outlines):
        tangents = outline.to(placed) - principal[i]
        rays.append(tangents[:, :1] * right[i] + tangents[:, 1:] * up[i] + forward[i])
    apart = []
    for i, j in combinations(range(len(outlines)), 2):
        line = position[j] - position[i]
        length = line.norm()
        along = line / length.clamp_min(1e-9)
        middle = -(position[i] + position[j]) / 2
        inwards = middle - (middle @ along) * along
        depth = inwards.norm()
        inwards = inwards / depth.clamp_min(1e-9)
        across = torch.linalg.cross(along, inwards)
        ahead = [rays[view] @ inwards for view in (i, j)]
        if float(length.detach()) < SHORTEST or min(float(each.detach().min()) for each in ahead) < IN_FRONT:
            apart.append(placed.new_zeros(2))
            continue
        slopes = [rays[view] @ across / each for view, each in zip((i, j), ahead, strict=True)]
        ends = [torch.stack([slope.min(), slope.max()]) for slope in slopes]
        apart.append(depth * (ends[0] - ends[1]))
    return torch.cat(apart) if apart else placed.new_zeros(0)
