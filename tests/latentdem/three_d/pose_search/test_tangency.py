"""Cameras found by the outlines of objects whose true cameras are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from PIL import Image

from latentdem.three_d.geometry.poses import PosePosterior
from latentdem.three_d.pictures import Crops, Picture, view_on_white
from latentdem.three_d.pose_search import tangency
from latentdem.three_d.pose_search.tangency import (
    POSES_FOUND,
    POSES_GIVEN,
    Freedom,
    agree,
    agreeing,
    disagreement,
    outline_of,
)
from latentdem.three_d.synthetic.render import on_white, render
from latentdem.three_d.synthetic.scenes import random_scene

CAMERAS = torch.tensor([[1.1, 0.3, 1.6], [1.5, 1.6, 1.6], [0.9, -1.2, 1.6]])
PIXEL = 2 * 1.6 * math.tan(math.radians(49.1) / 2) / 64  # of a picture of 64, at the object


@pytest.fixture(scope="module")
def views():
    """Three pictures of 64 x 64 pixels, with their masks."""
    rgba = render(random_scene(5), CAMERAS, 64)
    pixels = torch.from_numpy(on_white(rgba)).movedim(-1, 1) / 127.5 - 1
    masks = torch.from_numpy(rgba[..., 3]) / 255
    return [Picture(view[None], True, mask) for view, mask in zip(pixels, masks, strict=True)]


def less_radius(cameras):
    return F.pad(cameras - torch.tensor([0, 0, 1.6]), (0, 2)).double()


@pytest.mark.parametrize("masked", [True, False])
def test_outlines_agree_under_the_true_cameras(views, masked):
    pictures = views if masked else [view_on_white(view.pixels[0], "view") for view in views]
    outlines = [outline_of(picture) for picture in pictures]
    apart = disagreement(outlines, less_radius(CAMERAS))
    assert apart.shape == (6,)
    assert apart.abs().max() < (0.3 if masked else 0.5) * PIXEL
    wrong = CAMERAS + torch.tensor([[math.radians(10), 0, 0]])
    assert disagreement(outlines, less_radius(wrong)).abs().max() > 2 * PIXEL


def test_planes_are_those_of_a_ball():
    """Of a ball in the middle of two pictures, both planes are a radius away from the middle in both."""
    turn = torch.linspace(0, 2 * math.pi, 400)[:-1, None]
    tangent = 0.4 / math.sqrt(1.6**2 - 0.4**2)
    outline = tangent * torch.cat([turn.cos(), turn.sin()], 1).double()
    assert disagreement([outline, outline], less_radius(CAMERAS[:2])).abs().max() < 1e-4
    shifted = outline + outline.new_tensor([0.03, 0.05]) / 1.6
    moved = less_radius(CAMERAS[:2])
    assert disagreement([outline, shifted], moved).abs().max() > 0.03
    moved[1, 3:] = torch.tensor([0.03, 0.05])  # where that picture shows the middle
    assert disagreement([outline, shifted], moved).abs().max() < 1e-4


@pytest.mark.parametrize("off", [-10.0, 10.0])
def test_outlines_tell_the_height(views, off):
    outlines = [outline_of(view) for view in views]
    wrong = CAMERAS + torch.tensor([math.radians(off), 0, -1.6])
    found = agreeing(outlines, wrong, POSES_GIVEN)
    assert math.degrees((found[0, 0] - CAMERAS[0, 0]).abs()) < 2
    poses = less_radius(CAMERAS) - less_radius(CAMERAS)[:1]
    torch.testing.assert_close((found - found[:1]).double(), poses, atol=1e-5, rtol=0)


def test_poses_that_were_found_get_nearer(views):
    outlines = [outline_of(view) for view in views]
    wrong = less_radius(CAMERAS)
    wrong[:, :2] += torch.tensor([[0.05, 0], [0, 0.08], [0.06, -0.06]])
    found = agreeing(outlines, wrong, POSES_FOUND)
    before, after = (disagreement(outlines, cameras.double()).norm() for cameras in (wrong, found))
    assert after < 0.2 * before
    assert (found - less_radius(CAMERAS))[:, :2].norm() < (wrong - less_radius(CAMERAS))[:, :2].norm()
    assert not found[:, 2:].any()


def test_cameras_without_common_planes_stay():
    outline = torch.tensor([[-0.1, 0.1], [0.1, 0.1], [0.1, -0.1], [-0.1, -0.1]]).double()
    for azimuth in (0.05, math.pi):  # beside each other, and one behind the other
        cameras = less_radius(torch.tensor([[math.pi / 2, 0.0, 1.6], [math.pi / 2, azimuth, 1.6]]))
        assert not disagreement([outline, 2 * outline], cameras).any()
        assert torch.equal(agreeing([outline, 2 * outline], cameras, POSES_FOUND), cameras)


def test_crops_are_moved_until_outlines_agree(views):
    """Of crops around what is visible, the middles are not where the cameras look."""
    images = [Image.fromarray(view) for view in render(random_scene(5), CAMERAS[:2], 128)]
    crops = Crops(images, 64, ["one", "two"], "alpha")
    posterior = PosePosterior.certain(less_radius(CAMERAS[:2])[:, :3].float())
    moved, found = agree(crops.pictures(), crops, posterior, POSES_FOUND)
    before, after = (
        disagreement([outline_of(view) for view in each.pictures(256)], F.pad(cameras, (0, 2)).double()).norm()
        for each, cameras in ((crops, posterior.cameras[0]), (moved, found.cameras[0]))
    )
    assert before > PIXEL
    assert after < 0.3 * before
    assert found.cameras.shape == (1, 2, 3)


def test_all_hypotheses_move_as_the_best_does(views, monkeypatch):
    cameras = less_radius(CAMERAS)[:, :3].float() + torch.tensor([0.1, 0, 0])
    posterior = PosePosterior(torch.stack([cameras, cameras + 0.01]), torch.tensor([0.7, 0.3]))
    crops, found = agree(views, None, posterior, POSES_GIVEN)
    assert crops is None
    change = found.cameras - posterior.cameras
    assert change[0].abs().max() > 0.05
    torch.testing.assert_close(change[1], change[0])
    monkeypatch.setattr(tangency, "FARTHEST", 0.1)
    assert agree(views, None, posterior, POSES_GIVEN)[1] is posterior  # too far to be believed


def test_outlines_that_were_found_by_grabcut_say_less(views):
    posterior = PosePosterior.certain(less_radius(CAMERAS)[:, :3].float() + torch.tensor([0.1, 0, 0]))
    rough = [replace(view, how="grabcut") for view in views]
    exact, less = (agree(pictures, None, posterior, POSES_GIVEN)[1].cameras for pictures in (views, rough))
    moves = [float((moved - posterior.cameras).abs().max()) for moved in (exact, less)]
    assert 0.002 < moves[0] - moves[1] < 0.02  # the rough ones stay nearer to the 0.1 that is wrong


def test_pictures_that_are_not_cut_out_have_no_outline(views):
    posterior = PosePosterior.certain(less_radius(CAMERAS)[:, :3].float())
    whole = [*views[:2], replace(views[2], cut=False)]
    assert agree(whole, None, posterior, POSES_GIVEN)[1] is posterior
    assert agree(views[:1], None, posterior, POSES_GIVEN)[1] is posterior
    glass = [*views[:2], replace(views[2], mask=0.4 * views[2].mask)]
    assert agree(glass, None, posterior, POSES_GIVEN)[1] is posterior


def test_freedom_of_the_first_camera_is_that_of_all():
    scales = Freedom(0.1, 0.2, 0.3, 0.4).scales(2)
    torch.testing.assert_close(scales, torch.tensor([[0.1, 0, 0.3, 0.4, 0.4], [0.2, 0.2, 0.3, 0.4, 0.4]]))
