"""The polar angle of the first view, estimated from silhouettes of known objects."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("embreex", reason="the extra three-d is not installed")

from latentdem.three_d.geometry.cameras import RADIUS
from latentdem.three_d.geometry.poses import ring
from latentdem.three_d.mesh.first_camera import STEP, estimate_first_camera, silhouette_error
from latentdem.three_d.mesh.hull import PosedViews
from latentdem.three_d.synthetic.render import render
from latentdem.three_d.synthetic.scenes import random_scene


@pytest.mark.parametrize(("seed", "polar"), [(3, 60.0), (5, 90.0)])
def test_polar_angle_is_found(seed, polar):
    poses = torch.cat([ring(8, (0.0,)), torch.tensor([[-0.3, 2.0, 0.0]])])
    truth = torch.tensor([math.radians(polar), 0.0, RADIUS])
    masks = torch.from_numpy(render(random_scene(seed), truth + poses, 24)[..., 3]).float() / 255
    views = PosedViews(masks[:, None].expand(-1, 3, -1, -1), masks, poses, torch.ones(len(poses)))
    camera = estimate_first_camera(poses, views)
    assert math.degrees(camera[0]) == pytest.approx(polar, abs=STEP + 0.1)
    assert camera[1:].tolist() == truth[1:].tolist()
    wrong = truth + torch.tensor([math.radians(20.0), 0.0, 0.0])
    assert silhouette_error(views, truth + poses) < 0.7 * silhouette_error(views, wrong + poses)
