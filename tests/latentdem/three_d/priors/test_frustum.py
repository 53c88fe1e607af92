"""Volumes resampled from one camera's frustum to another's and rendered there, against points one by one."""

from __future__ import annotations

import math

import pytest
import torch

from latentdem.three_d.geometry.cameras import FIELD_OF_VIEW, OBJECT_RADIUS, RADIUS, camera_axes, random_cameras
from latentdem.three_d.priors.frustum import HIDDEN, cells, hits, locate, resample, warp
from latentdem_ext.reference import composite


def point(camera, plane, row, column, depths, size):
    """The centre of a cell in the world."""
    position, right, up, forward = camera_axes(camera)
    edge = math.tan(FIELD_OF_VIEW / 2)
    across, down = ((2 * i + 1) / size - 1 for i in (column, row))
    depth = camera[2] + ((2 * plane + 1) / depths - 1) * OBJECT_RADIUS
    return position + depth * (forward + edge * across * right - edge * down * up)


def test_centres_of_cells():
    cameras = random_cameras(2, torch.Generator().manual_seed(0)).double()
    actual = cells(cameras, 3, 4)
    assert actual.shape == (2, 3, 4, 4, 3)
    for camera, points in zip(cameras, actual, strict=True):
        for cell in ((0, 0, 0), (2, 3, 1), (1, 0, 2)):
            torch.testing.assert_close(points[cell], point(camera, *cell, 3, 4))


def test_compositing_along_a_ray():
    """An opaque plane hides what is behind it; the remaining light passes through."""
    volume = torch.rand(2, 3, 5, 2, 2, dtype=torch.float64)
    volume[0, 0, 2] = 1
    actual = composite(volume)
    for b in range(2):
        left, total = torch.ones(2, 2, dtype=torch.float64), torch.zeros(3, 2, 2, dtype=torch.float64)
        for plane in range(5):
            opacity = volume[b, 0, plane]
            total[0] += left * opacity
            total[1:] += left * opacity * volume[b, 1:, plane]
            left = left * (1 - opacity)
        torch.testing.assert_close(actual[b], total)
    torch.testing.assert_close(actual[0, 0], torch.ones(2, 2, dtype=torch.float64))
    behind = volume.clone()
    behind[0, :, 3:] = torch.rand(3, 2, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(composite(behind)[0], actual[0])


@pytest.mark.parametrize(("depths", "size"), [(1, 1), (4, 5), (6, 8)])
def test_nothing_moves_between_equal_cameras(depths, size):
    volume = torch.randn(3, 2, depths, size, size, dtype=torch.float64)
    cameras = random_cameras(3, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(resample(volume, cameras, cameras), volume)


def test_a_linear_field_stays_where_it_is():
    """A volume that is linear in right/forward, up/forward and depth shows the same points."""
    depths, size = 6, 8
    known, target = random_cameras(2, torch.Generator().manual_seed(1)).double()
    target = known + (target - known) / 8
    position, right, up, forward = camera_axes(known)

    def field(x):
        d = (x - position) @ forward
        slopes = torch.stack([(x - position) @ right / d, (x - position) @ up / d, d])
        return slopes @ torch.tensor([1.0, -2.0, 0.7], dtype=torch.float64)

    cells = [(k, i, j) for k in range(depths) for i in range(size) for j in range(size)]

    def values(camera):
        return torch.stack([field(point(camera, *cell, depths, size)) for cell in cells])

    volume = values(known).view(1, 1, depths, size, size)
    actual = resample(volume, known[None], target[None]).flatten()
    inner = [n for n, (k, i, j) in enumerate(cells) if 1 < k < depths - 2 and {i, j} <= set(range(2, size - 2))]
    torch.testing.assert_close(actual[inner], values(target)[inner])


def test_a_point_is_seen_from_behind():
    """Half a turn around the object: left is right, and the front is the back."""
    volume = torch.zeros(1, 1, 8, 8, 8)
    volume[0, 0, 3, 4, 4] = 1
    known = torch.tensor([[math.pi / 2, 0.3, RADIUS]])
    actual = resample(volume, known, known + torch.tensor([[0.0, math.pi, 0.0]]))[0, 0]
    assert actual.argmax() == torch.tensor([4, 4, 3]) @ torch.tensor([64, 8, 1])
    assert not resample(volume, known, known + torch.tensor([[0.0, 0.0, 5.0]])).any()


def test_gradients_in_the_camera():
    volume = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    known, target = random_cameras(2, torch.Generator().manual_seed(2)).double().split(1)
    assert torch.autograd.gradcheck(resample, (volume, known.requires_grad_(), target.requires_grad_()))


def test_points_are_located_where_the_cells_are():
    cameras = random_cameras(2, torch.Generator().manual_seed(3)).double()
    actual = locate(cells(cameras, 4, 6), cameras)
    planes, centres = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1 for n in (4, 6))
    expected = torch.stack(torch.meshgrid(planes, centres, centres, indexing="ij")[::-1], dim=-1)
    torch.testing.assert_close(actual, expected.expand_as(actual))


def test_a_crop_off_the_middle_shows_the_same_world():
    """The picture moved by whole pixels is the picture of the camera with its principal point moved."""
    size, pixel = 8, 2 * math.tan(FIELD_OF_VIEW / 2) / 8 * RADIUS
    camera = torch.tensor([[1.2, 0.7, RADIUS]], dtype=torch.float64)
    aside = torch.cat([camera, torch.tensor([[2 * pixel, pixel]], dtype=torch.float64)], dim=1)
    middle = torch.cat([camera, torch.zeros(1, 2, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(cells(middle, 4, size), cells(camera, 4, size))
    moved = cells(camera, 4, size)[:, :, 1:, :-2]  # two pixels to the right and one upwards
    torch.testing.assert_close(cells(aside, 4, size)[:, :, :-1, 2:], moved)
    volume = torch.randn(1, 2, 4, size, size, dtype=torch.float64)
    actual = resample(volume, camera, aside)
    torch.testing.assert_close(actual[..., :-1, 2:], volume[..., 1:, :-2])
    torch.testing.assert_close(resample(volume, aside, camera)[..., 1:, :-2], volume[..., :-1, 2:])
    torch.testing.assert_close(resample(volume, aside, aside), volume)


def test_gradients_in_the_principal_points():
    volume = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    cameras = random_cameras(2, torch.Generator().manual_seed(2)).double()
    cameras = torch.cat([cameras, torch.tensor([[0.05, -0.02], [0.01, 0.03]], dtype=torch.float64)], dim=1)
    known, target = cameras.split(1)
    assert torch.autograd.gradcheck(resample, (volume, known.requires_grad_(), target.requires_grad_()))


def wall(plane: int, size: int = 8) -> torch.Tensor:
    """Opacity (1, 1, size, size, size) of a plane that fills the frustum, and of nothing else."""
    opacity = torch.zeros(1, 1, size, size, size, dtype=torch.float64)
    opacity[:, :, plane] = 1
    return opacity


def test_rays_meet_a_wall_where_it_is():
    camera = torch.tensor([[1.2, 0.3, RADIUS]], dtype=torch.float64)
    hit = hits(wall(2), camera, camera)
    centres = (torch.arange(8, dtype=torch.float64) + 0.5) / 4 - 1
    rows, columns = torch.meshgrid(centres, centres, indexing="ij")
    expected = torch.stack([torch.ones_like(rows), columns, rows, torch.full_like(rows, centres[2])])
    torch.testing.assert_close(hit[0], expected)
    assert not hits(0 * wall(2), camera, camera).any()


def test_a_picture_is_warped_to_what_shows_the_same_points():
    """In its own camera nothing moves; a camera behind sees the wall mirrored, and the same side is hidden."""
    camera = torch.tensor([[math.pi / 2, 0.3, RADIUS]], dtype=torch.float64)
    picture = torch.rand(1, 4, 16, 16, dtype=torch.float64)
    picture[:, -1] = -3 / 8  # the depth of plane 2
    same = warp(picture, hits(wall(2), camera, camera))
    inner = (..., slice(1, -1), slice(1, -1))  # between the outermost centres of the coarser rays
    torch.testing.assert_close(same[:, :3][inner], picture[:, :3][inner])
    assert same[:, 3].abs().max() < 1e-12
    torch.testing.assert_close(same[:, 4], torch.ones_like(same[:, 4]))
    slab = wall(2) + wall(5)
    behind = camera + torch.tensor([[0.0, math.pi, 0.0]])
    hit = hits(slab, camera, behind)
    centre = hit[0, :, 3:5, 3:5]
    torch.testing.assert_close(centre[0], torch.ones_like(centre[0]), atol=0.02, rtol=0)
    assert (centre[1, :, 0] > 0).all()  # its left is the known camera's right
    assert ((centre[3] / centre[0] - 3 / 8).abs() < 0.05).all()
    deeper = warp(picture, hit)[0, 3, 6:10, 6:10]
    torch.testing.assert_close(deeper, torch.full_like(deeper, 0.75 / HIDDEN).clamp(max=1), atol=0.05, rtol=0)


def test_gradients_of_a_warped_picture_in_the_cameras():
    generator = torch.Generator().manual_seed(5)
    opacity = torch.rand(1, 1, 3, 3, 3, dtype=torch.float64, generator=generator)
    picture = torch.rand(1, 3, 5, 5, dtype=torch.float64, generator=generator)
    known, target = random_cameras(2, torch.Generator().manual_seed(2)).double().split(1)

    def warped(*arguments):
        opacity, picture, known, target = arguments
        return warp(picture, hits(opacity, known, target))

    cameras = (known.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(warped, (opacity.requires_grad_(), picture.requires_grad_(), *cameras))
