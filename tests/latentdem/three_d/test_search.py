"""The pose search with the exact prior, whose poses are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.pose_search import noise_error, search
from latentdem.three_d.pose_search.candidates import APART, Places, around, distinct, edges, spread
from latentdem.three_d.poses import angle_between


@pytest.mark.parametrize("views", [2, 3, 4])
def test_true_poses_are_found(exact, views):
    problem = exact(views)
    beliefs, confidence = problem.search()()
    poses = beliefs.poses[0]
    assert problem.wrong(poses) < 1  # measured: 0.2
    assert not poses[0].any()
    assert confidence[0] == 1
    assert (confidence > 0.9).all()


def test_the_m_step_refines_what_the_grid_gives(exact):
    problem = exact(2)
    beliefs, _ = problem.search(replace(ReconstructionConfig(), refinements=0))()
    coarse = beliefs.cameras[0]
    assert 4 < problem.wrong(coarse) < 20
    refined = problem.search().refine(coarse[None], torch.arange(2), 36)[0]
    assert problem.wrong(refined) < 1


def test_same_seed_same_poses(exact):
    problem = exact(3)
    first, again = (problem.search(seed=3)() for _ in range(2))
    assert torch.equal(first[0].cameras, again[0].cameras)
    assert torch.equal(first[0].weights, again[0].weights)
    assert torch.equal(first[1], again[1])


def test_batches_of_any_size_give_the_same(exact, monkeypatch):
    problem = exact(3)
    draws = problem.error.draws(2, torch.Generator().manual_seed(0))
    sets = torch.stack([problem.poses, bent(problem.poses)])
    whole = problem.search().losses(sets, torch.arange(3), draws)
    refined = problem.search().refine(sets, torch.arange(3), 36)
    monkeypatch.setattr(noise_error, "MAX_BATCH", 5)
    torch.testing.assert_close(problem.search().losses(sets, torch.arange(3), draws), whole)
    torch.testing.assert_close(problem.search().refine(sets, torch.arange(3), 36), refined, atol=1e-4, rtol=0)


def bent(poses):
    moved = poses.clone()
    moved[1:, 1] += 0.3
    return moved


def test_the_batch_is_bounded(exact, monkeypatch):
    problem = exact(3)
    sizes = []
    predict = problem.prior.predict_noise

    def counting(z_t, *args):
        sizes.append(len(z_t))
        return predict(z_t, *args)

    monkeypatch.setattr(problem.prior, "predict_noise", counting)
    problem.search(replace(ReconstructionConfig(), refinements=2))()
    assert max(sizes) <= noise_error.MAX_BATCH


def test_true_poses_have_the_least_error(exact):
    problem = exact(3)
    draws = problem.error.draws(4, torch.Generator().manual_seed(0))
    sets = torch.stack([problem.poses, bent(problem.poses)])
    losses = problem.search().losses(sets, torch.arange(3), draws).mean(0)
    assert losses[0] < losses[1]


def test_gradient_is_that_of_the_error(exact):
    error = exact(2).error
    draws = error.draws(1, torch.Generator().manual_seed(0))
    first, second = torch.tensor([0]), torch.tensor([1])
    cameras = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 1.3, 0.0]]])
    direction, step = torch.tensor([[[-0.1, 0.2, 0.1], [0.2, 1.0, 0.6]]]), 1e-2
    ahead, behind = (error(first, second, cameras + sign * step * direction, draws) for sign in (1, -1))
    slope = (error.gradient(first, second, cameras, draws[0]) * direction).sum()
    torch.testing.assert_close(slope, ((ahead - behind) / (2 * step))[0, 0], rtol=2e-2, atol=1e-3)


def test_hypotheses_are_different(exact):
    found = exact(2).search().hypotheses(1)
    assert len(found) == ReconstructionConfig().hypotheses
    for i in range(len(found)):
        for j in range(i):
            assert angle_between(found[i], found[j]) >= APART


def test_the_third_view_decides_between_places(exact):
    """Two views alone prefer a wrong pose; the triangle of three leads back to the true one."""
    problem = exact(3)
    false = bent(bent(bent(problem.poses)))
    pairs = torch.stack([false[:2], problem.poses[:2]])
    places = [
        Places(pairs, torch.tensor([0.0, 1.0])),  # the false one of view 2 looks a little better
        Places(problem.poses[None, [0, 2]], torch.zeros(1)),
    ]
    sets = problem.search(replace(ReconstructionConfig(), refinements=0)).joined(places)
    torch.testing.assert_close(sets[0], problem.poses)


def test_views_join_where_the_first_does_not_tell(exact):
    """Whatever their order, every view ends where it was taken from, and those joined earlier stay there."""
    problem = exact(4)
    turned = problem.poses.clone()
    turned[:, 1] += math.pi
    places = [
        Places(
            torch.stack([turned[[0, view]] * turned.new_tensor([[0.0], [1.0]]), problem.poses[[0, view]]]),
            losses,
        )
        for view, losses in zip((1, 2, 3), torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), strict=True)
    ]
    sets = problem.search(replace(ReconstructionConfig(), refinements=0)).joined(places)
    torch.testing.assert_close(sets[0], problem.poses)
    bad = places[2].pairs.flip(0)
    bad[0, 1, 1] += 0.3
    sets = problem.search().joined([*places[:2], Places(bad, torch.tensor([0.0, 0.5]))])
    torch.testing.assert_close(sets[0, :3], problem.poses[:3], atol=0.02, rtol=0)
    assert angle_between(sets[0, 3], problem.poses[3]) < 0.05


def test_a_view_that_joined_at_the_wrong_place_changes_it(exact):
    problem = exact(4)
    wrong = problem.poses.clone()
    wrong[2, 1] += math.pi
    places = [Places(problem.poses[None, [0, view]], torch.zeros(1)) for view in (1, 2, 3)]
    places[1] = Places(torch.stack([wrong[[0, 2]], problem.poses[[0, 2]]]), torch.tensor([0.0, 1.0]))
    search = problem.search()
    cameras, rivals = search.settled(wrong, places)
    assert problem.wrong(cameras) < 1
    assert not len(rivals[0])
    assert any(torch.equal(pose, wrong[2]) for pose in rivals[1])
    again, _ = search.settled(problem.poses, places)
    assert torch.equal(again, problem.poses)


def test_a_view_is_judged_by_all_others(exact):
    """By more pairs than sets of many views are: the pairs of two views, one by one."""
    problem = exact(4)
    sets = torch.stack([problem.poses, bent(problem.poses)])
    found = problem.search().judged_by_all(sets, 2, exact=True)
    expected = torch.zeros(2, dtype=sets.dtype)
    draws = problem.error.draws(search.GRID_DRAWS, torch.Generator().manual_seed(0))
    for other in (0, 1, 3):
        index = torch.tensor([other] * 2), torch.tensor([2] * 2)
        expected = expected + problem.error(*index, sets[:, [other, 2]], draws).mean(0)
    torch.testing.assert_close(found, expected)
    assert found[0] < found[1]


def test_sure_views_that_are_apart():
    cameras = torch.zeros(6, 3)
    cameras[:, 1] = torch.deg2rad(torch.tensor([0.0, 10.0, 170.0, 180.0, -90.0, 90.0]))
    assert spread([0, 1, 2, 4, 3, 5], cameras) == [0, 2, 4]  # of 1, 2 and 4, which are sure
    assert spread([0, 1, 2], cameras) == [0, 2, 1]


def test_the_last_view_goes_around():
    cameras = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    sets = around(cameras)
    assert sets.shape == (24, 3, 3)
    assert torch.equal(sets[:, :2], cameras[:2].expand(24, 2, 3))
    assert torch.equal(sets[0], cameras)
    torch.testing.assert_close(sets[:, 2, 1] - cameras[2, 1], torch.arange(24) * math.pi / 12)


def test_distinct_sets_in_the_order_of_their_errors():
    sets = torch.zeros(4, 2, 3)
    sets[:, 1, 1] = torch.tensor([0.0, 0.5, 0.52, math.pi])
    sets[:, :, 0] += torch.tensor([[0.0], [0.0], [1.0], [0.0]])  # what all views share does not count
    losses = torch.tensor([4.0, 2.0, 1.0, 3.0])
    assert distinct(sets, losses, 0.1, 4).tolist() == [2, 3, 0]
    assert distinct(sets, losses, 0.1, 2).tolist() == [2, 3]
    assert distinct(sets, losses, 0.1, 4, 2.5).tolist() == [2, 3]
    assert distinct(sets, losses, 0.01, 4).tolist() == [2, 1, 3, 0]


def test_likely_poses_are_believed(exact, monkeypatch):
    """Near each other they are one, what is unlikely is left out, and a prior that samples takes the best."""
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    near, beside, far = (problem.poses.clone() for _ in range(3))
    near[1, 1] += 0.001
    beside[1, 1] += 0.04
    far[1, 1] += math.pi / 2
    sets = torch.stack([far, beside, near, problem.poses])
    losses = problem.search().losses(sets, torch.arange(2), draws).mean(0)
    assert losses[1] - losses[3] < search.UNLIKELY * search.TEMPERATURE < losses[0] - losses[3]
    sample = problem.search().believed(sets, draws)
    assert len(sample.weights) == 1
    monkeypatch.setattr(problem.prior, "temperature", 0.0)
    beliefs = problem.search().believed(sets, draws)
    assert torch.equal(beliefs.cameras[:1], sample.cameras)
    assert problem.wrong(beliefs.poses[0]) < 0.1
    assert torch.equal(beliefs.cameras[1:], beside[None])
    losses = problem.search().losses(beliefs.cameras, torch.arange(2), draws).mean(0)
    torch.testing.assert_close(beliefs.weights, torch.softmax(-losses / search.TEMPERATURE, 0))
    alone = problem.search(replace(ReconstructionConfig(), believed=1)).believed(sets, draws)
    assert torch.equal(alone.cameras, beliefs.cameras[:1])


def test_confidence_falls_where_another_hypothesis_is_better(exact):
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    false = problem.poses.clone()
    false[1, 1] += math.pi / 2
    search = problem.search()
    assert search.confidence(problem.poses, 1, false[1:], draws) > 0.9
    assert search.confidence(false, 1, problem.poses[1:], draws) < 0.1
    assert search.confidence(false, 1, false[1:], draws) == 1


def test_pairs_that_are_compared():
    assert [len(edges(n)[0]) for n in (1, 2, 3, 4, 20)] == [0, 1, 3, 6, 54]
    first, second = edges(5)
    assert (first < second).all()
