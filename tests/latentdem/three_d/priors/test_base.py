"""What all view-conditioned priors have in common: features of views, their cameras, and shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from latentdem.three_d.priors.base import ViewCondition, ViewPrior, concatenate
from latentdem.three_d.synthetic.finite_objects import FiniteObjectsPrior

from ..tiny_priors import finite, inputs, tiny


@pytest.mark.parametrize("prior", [tiny(), finite()], ids=["embedded", "finite"])
def test_members_and_shapes(prior):
    assert isinstance(prior, ViewPrior)
    x, z_t, pose = inputs(
        prior, dtype=torch.float64 if isinstance(prior, FiniteObjectsPrior) else torch.float32
    )
    z = prior.encode(x)
    assert z.shape == (2, *prior.latent_shape)
    assert prior.decode(z).shape == x.shape
    condition = prior.condition(x)
    assert len(condition) == 2
    noise = prior.predict_noise(z_t, 500, prior.posed(condition, pose))
    assert noise.shape == z_t.shape
    variance = prior.posed(condition, pose).variance
    assert variance.shape[:2] == (2, 1)
    assert torch.broadcast_shapes(variance.shape, z.shape) == z.shape
    assert (variance > 0).all()
    # Rows do not mix, whatever their order.
    swapped = torch.tensor([1, 0])
    again = prior.predict_noise(z_t[swapped], 500, prior.posed(condition[swapped], pose[swapped]))
    torch.testing.assert_close(again[swapped], noise, atol=2e-5, rtol=1e-4)


def test_cameras_agree_with_the_estimated_polar_angles():
    poses = torch.tensor([[0.0, 0.0, 0.0], [0.1, 2.0, 0.0]])
    condition = ViewCondition((torch.zeros(3, 1),), torch.tensor([1.0, 9.0, 1.3]))
    cameras = condition.cameras(poses, torch.tensor([0, 2]))
    torch.testing.assert_close(cameras, torch.tensor([[1.1, 0.0, 0.0], [1.2, 2.0, 0.0]]))
    moved = condition.at(F.pad(torch.tensor([[1.0], [1.1], [1.2]]), (0, 2)))[torch.tensor([2, 0])]
    torch.testing.assert_close(moved.polar, torch.tensor([1.2, 1.0]))
    certain = replace(condition, deviation=torch.tensor([[0.1], [1.0], [0.2]]).expand(3, 5))
    heights = certain.cameras(poses, torch.tensor([0, 2]))[:, 0]
    torch.testing.assert_close(heights, 1.0 + 0.2 / 5 + torch.tensor([0.0, 0.1]))  # four times the weight
    torch.testing.assert_close(
        concatenate([certain, certain[:1]]).deviation[:, 0], torch.tensor([0.1, 1.0, 0.2, 0.1])
    )
    blank = ViewCondition((torch.zeros(3, 1),))
    assert torch.equal(blank.cameras(poses, torch.tensor([0, 2])), poses)
    assert blank.at(torch.ones(3, 3)).polar is None


def test_cameras_of_crops_have_principal_points():
    poses = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0], [0.1, 2.0, 0.0, 0.02, -0.06]])
    condition = ViewCondition((torch.zeros(2, 1),), torch.tensor([1.0, 1.1]))
    crops, both = condition.cropped(), torch.arange(2)
    cameras = crops.cameras(poses, both)
    torch.testing.assert_close(
        cameras, torch.tensor([[1.0, 0.0, 0.0, -0.01, 0.03], [1.1, 2.0, 0.0, 0.01, -0.03]])
    )
    torch.testing.assert_close(crops.cameras(poses[:, :3], both), F.pad(cameras[:, :3], (0, 2)))
    torch.testing.assert_close(crops.at(cameras)[torch.tensor([1])].principal, cameras[1:, 3:])
    assert condition.at(cameras[:, :3]).principal is None
    blank = ViewCondition((torch.zeros(2, 1),))
    assert blank.cropped() is blank
