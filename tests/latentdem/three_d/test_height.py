"""The height of the first view, out of silhouettes of known objects."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("embreex")

from latentdem.three_d.cameras import RADIUS
from latentdem.three_d.mesh.height import STEP, disagreement, first_camera
from latentdem.three_d.mesh.volume import Pictures
from latentdem.three_d.poses import ring
from latentdem.three_d.synthetic.render import render
from latentdem.three_d.synthetic.scenes import random_scene


@pytest.mark.parametrize(("seed", "polar"), [(3, 60.0), (5, 90.0)])
def test_height_is_found(seed, polar):
    poses = torch.cat([ring(8, (0.0,)), torch.tensor([[-0.3, 2.0, 0.0]])])
    truth = torch.tensor([math.radians(polar), 0.0, RADIUS])
    masks = torch.from_numpy(render(random_scene(seed), truth + poses, 24)[..., 3]).float() / 255
    pictures = Pictures(masks[:, None].expand(-1, 3, -1, -1), masks, poses, torch.ones(len(poses)))
    found = first_camera(poses, pictures)
    assert math.degrees(found[0]) == pytest.approx(polar, abs=STEP + 0.1)
    assert found[1:].tolist() == truth[1:].tolist()
    wrong = truth + torch.tensor([math.radians(20.0), 0.0, 0.0])
    assert disagreement(pictures, truth + poses) < 0.7 * disagreement(pictures, wrong + poses)
