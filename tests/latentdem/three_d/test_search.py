"""The pose search with the exact prior, whose poses are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from latentdem.three_d import noise_error, search
from latentdem.three_d.poses import angle_between
from latentdem.three_d.recipe import Recipe
from latentdem.three_d.search import APART, edges


@pytest.mark.parametrize("views", [2, 3])
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
    beliefs, _ = problem.search(replace(Recipe(), refinements=0))()
    coarse = beliefs.cameras[0]
    assert 4 < problem.wrong(coarse) < 20
    refined = problem.search().refine(coarse[None])[0]
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
    whole = problem.search().loss(sets, draws)
    refined = problem.search().refine(sets)
    monkeypatch.setattr(noise_error, "MAX_BATCH", 5)
    torch.testing.assert_close(problem.search().loss(sets, draws), whole)
    torch.testing.assert_close(problem.search().refine(sets), refined, atol=1e-4, rtol=0)


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
    problem.search(replace(Recipe(), refinements=2))()
    assert max(sizes) <= noise_error.MAX_BATCH


def test_true_poses_have_the_least_error(exact):
    problem = exact(3)
    draws = problem.error.draws(4, torch.Generator().manual_seed(0))
    losses = problem.search().loss(torch.stack([problem.poses, bent(problem.poses)]), draws).sum(0)
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
    assert len(found) == Recipe().hypotheses
    for i in range(len(found)):
        for j in range(i):
            assert angle_between(found[i], found[j]) >= APART


def test_the_third_view_decides_between_hypotheses(exact):
    """Two views alone prefer a wrong pose; the triangle of three leads back to the true one."""
    problem = exact(3)
    false = bent(bent(bent(problem.poses)))
    search = problem.search(replace(Recipe(), hypotheses=1))
    plain = search._tables

    def biased(options):
        tables = plain(options)
        tables[0, 1][0, 0] = tables[0, 1].min() - 1  # the false hypothesis of view 2 looks a little better
        return tables

    search._tables = biased
    candidates = [torch.stack([false[1], problem.poses[1]]), problem.poses[2:]]
    torch.testing.assert_close(search.consistent(candidates)[0], problem.poses)


def test_likely_poses_are_believed(exact, monkeypatch):
    """Near each other they are one, what is unlikely is left out, and a prior that samples takes the best."""
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    near, beside, far = (problem.poses.clone() for _ in range(3))
    near[1, 1] += 0.001
    beside[1, 1] += 0.04
    far[1, 1] += math.pi / 2
    sets = torch.stack([far, beside, near, problem.poses])
    losses = problem.search().loss(sets, draws).sum(0)
    assert losses[1] - losses[3] < search.UNLIKELY * search.TEMPERATURE < losses[0] - losses[3]
    sample = problem.search().believed(sets, draws)
    assert len(sample.weights) == 1
    monkeypatch.setattr(problem.prior, "temperature", 0.0)
    beliefs = problem.search().believed(sets, draws)
    assert torch.equal(beliefs.cameras[:1], sample.cameras)
    assert problem.wrong(beliefs.poses[0]) < 0.1
    assert torch.equal(beliefs.cameras[1:], beside[None])
    losses = problem.search().loss(beliefs.cameras, draws).sum(0)
    torch.testing.assert_close(beliefs.weights, torch.softmax(-losses / search.TEMPERATURE, 0))
    alone = problem.search(replace(Recipe(), believed=1)).believed(sets, draws)
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
