"""Candidate poses: which differ, which views check each other, and which pairs are compared."""

from __future__ import annotations

import math

import torch

from latentdem.three_d.pose_search.candidates import compared_pairs, distinct, spread_out, turn_last


def test_certain_views_that_are_far_apart():
    cameras = torch.zeros(6, 3)
    cameras[:, 1] = torch.deg2rad(torch.tensor([0.0, 10.0, 170.0, 180.0, -90.0, 90.0]))
    assert spread_out([0, 1, 2, 4, 3, 5], cameras) == [0, 2, 4]  # 1, 2 and 4 are the certain ones
    assert spread_out([0, 1, 2], cameras) == [0, 2, 1]


def test_the_last_view_is_turned_around_the_object():
    cameras = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    sets = turn_last(cameras)
    assert sets.shape == (24, 3, 3)
    assert torch.equal(sets[:, :2], cameras[:2].expand(24, 2, 3))
    assert torch.equal(sets[0], cameras)
    torch.testing.assert_close(sets[:, 2, 1] - cameras[2, 1], torch.arange(24) * math.pi / 12)


def test_distinct_sets_in_the_order_of_their_errors():
    sets = torch.zeros(4, 2, 3)
    sets[:, 1, 1] = torch.tensor([0.0, 0.5, 0.52, math.pi])
    sets[:, :, 0] += torch.tensor([[0.0], [0.0], [1.0], [0.0]])  # a common rotation of all views is irrelevant
    losses = torch.tensor([4.0, 2.0, 1.0, 3.0])
    assert distinct(sets, losses, 0.1, 4).tolist() == [2, 3, 0]
    assert distinct(sets, losses, 0.1, 2).tolist() == [2, 3]
    assert distinct(sets, losses, 0.1, 4, 2.5).tolist() == [2, 3]
    assert distinct(sets, losses, 0.01, 4).tolist() == [2, 1, 3, 0]


def test_pairs_that_are_compared():
    assert [len(compared_pairs(n)[0]) for n in (1, 2, 3, 4, 20)] == [0, 1, 3, 6, 54]
    first, second = compared_pairs(5)
    assert (first < second).all()
