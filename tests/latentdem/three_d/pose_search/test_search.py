"""The pose search with the exact prior, whose poses are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.geometry.cameras import POLAR_RANGE
from latentdem.three_d.geometry.poses import angle_between
from latentdem.three_d.pose_search import candidates as candidates_module
from latentdem.three_d.pose_search import noise_error, objective, search
from latentdem.three_d.pose_search.candidates import APART, PairCandidates
from latentdem.three_d.pose_search.noise_error import PairError
from latentdem.three_d.pose_search.search import PoseSearch
from latentdem.three_d.priors import adaptation

from ..tiny_priors import inputs, tiny


@pytest.mark.parametrize("views", [2, 3, 4])
def test_true_poses_are_found(exact, views):
    problem = exact(views)
    posterior, confidence = problem.search()()
    poses = posterior.poses[0]
    assert problem.error_of(poses) < 1  # measured: 0.2
    assert not poses[0].any()
    assert confidence[0] == 1
    assert (confidence > 0.9).all()


def test_the_m_step_refines_what_the_grid_gives(exact):
    problem = exact(2)
    posterior, _ = problem.search(replace(ReconstructionConfig(), refinements=0))()
    coarse = posterior.cameras[0]
    assert 4 < problem.error_of(coarse) < 20
    refined = problem.search().objective.refine(coarse[None], torch.arange(2), 36)[0]
    assert problem.error_of(refined) < 1


def test_same_seed_same_poses(exact):
    problem = exact(3)
    config = ReconstructionConfig(hypotheses=3, refinements=6)
    first, again = (problem.search(config, seed=3)() for _ in range(2))
    assert torch.equal(first[0].cameras, again[0].cameras)
    assert torch.equal(first[0].weights, again[0].weights)
    assert torch.equal(first[1], again[1])


def test_batches_of_any_size_give_the_same(exact, monkeypatch):
    problem = exact(3)
    draws = problem.error.draws(2, torch.Generator().manual_seed(0))
    sets = torch.stack([problem.poses, misplaced(problem.poses)])
    whole = problem.search().objective.losses(sets, torch.arange(3), draws)
    refined = problem.search().objective.refine(sets, torch.arange(3), 36)
    monkeypatch.setattr(noise_error, "MAX_BATCH", 5)
    torch.testing.assert_close(problem.search().objective.losses(sets, torch.arange(3), draws), whole)
    torch.testing.assert_close(
        problem.search().objective.refine(sets, torch.arange(3), 36), refined, atol=1e-4, rtol=0
    )


def misplaced(poses):
    """All poses but the first moved by 17 degrees."""
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
    sets = torch.stack([problem.poses, misplaced(problem.poses)])
    losses = problem.search().objective.losses(sets, torch.arange(3), draws).mean(0)
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
    poses = exact(2).search().hypotheses(1)
    assert len(poses) == ReconstructionConfig().hypotheses
    for i in range(len(poses)):
        for j in range(i):
            assert angle_between(poses[i], poses[j]) >= APART


def test_the_third_view_decides_between_candidates(exact):
    """Two views alone prefer a wrong pose; the triangle of three leads back to the true one."""
    problem = exact(3)
    wrong = misplaced(misplaced(misplaced(problem.poses)))
    pairs = torch.stack([wrong[:2], problem.poses[:2]])
    candidates = [
        PairCandidates(pairs, torch.tensor([0.0, 1.0])),  # the wrong one of view 2 has a slightly smaller loss
        PairCandidates(problem.poses[None, [0, 2]], torch.zeros(1)),
    ]
    sets = problem.search(replace(ReconstructionConfig(), refinements=0)).join(candidates)
    torch.testing.assert_close(sets[0], problem.poses)


def test_views_join_at_their_poses_if_the_first_view_is_ambiguous(exact):
    """Whatever their order, every view ends at its true pose, and views that joined earlier stay there."""
    problem = exact(4)
    turned = problem.poses.clone()
    turned[:, 1] += math.pi
    candidates = [
        PairCandidates(
            torch.stack([turned[[0, view]] * turned.new_tensor([[0.0], [1.0]]), problem.poses[[0, view]]]),
            losses,
        )
        for view, losses in zip((1, 2, 3), torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), strict=True)
    ]
    sets = problem.search(replace(ReconstructionConfig(), refinements=0)).join(candidates)
    torch.testing.assert_close(sets[0], problem.poses)
    bad = candidates[2].pairs.flip(0)
    bad[0, 1, 1] += 0.3
    sets = problem.search().join([*candidates[:2], PairCandidates(bad, torch.tensor([0.0, 0.5]))])
    torch.testing.assert_close(sets[0, :3], problem.poses[:3], atol=0.02, rtol=0)
    assert angle_between(sets[0, 3], problem.poses[3]) < 0.05


def test_a_view_that_joined_at_a_wrong_pose_is_corrected(exact):
    problem = exact(4)
    wrong = problem.poses.clone()
    wrong[2, 1] += math.pi
    candidates = [PairCandidates(problem.poses[None, [0, view]], torch.zeros(1)) for view in (1, 2, 3)]
    candidates[1] = PairCandidates(
        torch.stack([wrong[[0, 2]], problem.poses[[0, 2]]]), torch.tensor([0.0, 1.0])
    )
    search = problem.search()
    cameras, alternatives = search.recheck(wrong, candidates)
    assert problem.error_of(cameras) < 1
    assert not len(alternatives[0])
    assert any(torch.equal(pose, wrong[2]) for pose in alternatives[1])
    again, _ = search.recheck(problem.poses, candidates)
    assert torch.equal(again, problem.poses)


def test_a_view_is_scored_against_all_others(exact):
    """The score is the sum over the pairs with all other views, one by one."""
    problem = exact(4)
    sets = torch.stack([problem.poses, misplaced(problem.poses)])
    scores = problem.search().objective.score_against_all(sets, 2, exact=True)
    expected = torch.zeros(2, dtype=sets.dtype)
    draws = problem.error.draws(objective.SCORE_DRAWS, torch.Generator().manual_seed(0))
    for other in (0, 1, 3):
        index = torch.tensor([other] * 2), torch.tensor([2] * 2)
        expected = expected + problem.error(*index, sets[:, [other, 2]], draws).mean(0)
    torch.testing.assert_close(scores, expected)
    assert scores[0] < scores[1]


def test_posterior_of_likely_poses(exact, monkeypatch):
    """Nearby sets are merged, unlikely ones are dropped, and a prior that samples takes the best one."""
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    near, beside, far = (problem.poses.clone() for _ in range(3))
    near[1, 1] += 0.001
    beside[1, 1] += 0.04
    far[1, 1] += math.pi / 2
    sets = torch.stack([far, beside, near, problem.poses])
    losses = problem.search().objective.losses(sets, torch.arange(2), draws).mean(0)
    assert losses[1] - losses[3] < search.UNLIKELY * search.TEMPERATURE < losses[0] - losses[3]
    sample = problem.search().posterior(sets, draws)
    assert len(sample.weights) == 1
    monkeypatch.setattr(problem.prior, "temperature", 0.0)
    posterior = problem.search().posterior(sets, draws)
    assert torch.equal(posterior.cameras[:1], sample.cameras)
    assert problem.error_of(posterior.poses[0]) < 0.1
    assert torch.equal(posterior.cameras[1:], beside[None])
    losses = problem.search().objective.losses(posterior.cameras, torch.arange(2), draws).mean(0)
    torch.testing.assert_close(posterior.weights, torch.softmax(-losses / search.TEMPERATURE, 0))
    alone = problem.search(replace(ReconstructionConfig(), posterior_size=1)).posterior(sets, draws)
    assert torch.equal(alone.cameras, posterior.cameras[:1])


def test_confidence_falls_where_another_hypothesis_is_better(exact):
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    wrong = problem.poses.clone()
    wrong[1, 1] += math.pi / 2
    likely = problem.search().objective.likely_poses
    assert likely(problem.poses, 1, wrong[None], draws)[1][0] > 0.9
    poses, probabilities = likely(wrong, 1, problem.poses[None], draws)
    assert probabilities[0] < 0.1
    assert probabilities[1] > 0.9
    torch.testing.assert_close(poses, torch.stack([wrong[1] - wrong[0], problem.poses[1] - problem.poses[0]]))
    assert likely(wrong, 1, wrong[None], draws)[1].tolist() == [1]


def test_confidence_is_shared_by_poses_that_are_as_good(exact, monkeypatch):
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    others = problem.poses.repeat(3, 1, 1)
    others[:, 1, 1] += torch.tensor([1.0, 2.0, 3.0])
    search = problem.search().objective
    monkeypatch.setattr(type(search), "losses", lambda self, sets, *rest, **named: torch.zeros(8, len(sets)))
    probabilities = search.likely_poses(problem.poses, 1, others, draws)[1]
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 1 / 4))
    assert len(probabilities) == 4
    others[:, 1, 1] = others[0, 1, 1] + torch.tensor([0.0, 0.1, 2.0])  # the first two are one pose
    assert len(search.likely_poses(problem.poses, 1, others, draws)[1]) == 3


def test_confidence_falls_where_the_prior_does_not_explain_the_views(exact, monkeypatch):
    problem = exact(2)
    draws = problem.error.draws(8, torch.Generator().manual_seed(0))
    search = problem.search().objective
    for misfit, expected in ((0.5, 1.0), (objective.MISFIT, 0.5), (2.0, 0.0)):
        monkeypatch.setattr(PairError, "misfit", lambda *_, value=misfit: torch.tensor([value]))
        found = search.likely_poses(problem.poses, 1, problem.poses[None], draws)[1]
        assert float(found[0]) == pytest.approx(expected, abs=1e-3)


def test_search_refines_polar_angles_with_the_embedded_prior(monkeypatch):
    monkeypatch.setattr(candidates_module, "GRID_AZIMUTHS", 8)
    monkeypatch.setattr(adaptation, "BUNDLE_STEPS", 4)
    prior = tiny()
    x, _, _ = inputs(prior)
    condition = prior.condition(x)
    error = PairError(prior, condition, prior.encode(x))
    config = ReconstructionConfig(refinements=3, hypotheses=2)
    search = PoseSearch(error, config, torch.Generator().manual_seed(0))
    start = condition.cameras(torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.7, 0.0]]]), torch.tensor([0, 1]))
    moved = search.objective.refine(start, torch.arange(2), config.refinements)
    assert (moved[0, :, 0] != start[0, :, 0]).all()
    assert not moved[0, 0, 1:].any()
    posterior, _ = search()
    cameras = posterior.cameras[0]
    low, high = POLAR_RANGE
    assert cameras.shape == (2, 3)
    assert low <= float(cameras[0, 0]) <= high


def scoring(problem, monkeypatch, score):
    """The prior of a problem with `score` of the camera of the wanted views, relative to the known ones."""
    posed = problem.prior.posed

    def with_pose(condition, pose, together=1):
        return replace(posed(condition, pose, together), parts=(pose,))

    monkeypatch.setattr(problem.prior, "predict_noise", lambda z_t, t, posed: torch.zeros_like(z_t))
    monkeypatch.setattr(problem.prior, "posed", with_pose)
    monkeypatch.setattr(problem.prior, "score", lambda posed, z: score(posed.parts[0]))


def test_the_best_score_chooses_among_poses_far_apart(exact, monkeypatch):
    """Without a difference of the noise error, all poses are likely; scores leave those near the best."""
    problem = exact(2)
    poses = torch.zeros(4, 2, 3, dtype=problem.poses.dtype)
    poses[:, 1, 1] = torch.tensor([-2.0, -0.1, 0.0, 2.0])
    scoring(problem, monkeypatch, lambda pose: 3.0 * (pose[:, 1].abs() < 0.05))
    pose_search = problem.search()
    draws = pose_search.objective.draws(2, exact=True)
    assert angle_between(pose_search.posterior(poses, draws).poses[:, 1], poses[2, 1]).max() < APART / 2
    monkeypatch.setattr(problem.prior, "score", lambda posed, z: None)
    found = pose_search.posterior(poses, draws).poses[:, 1]
    assert angle_between(found, poses[2, 1]).max() > APART


def test_confidence_is_the_softmax_of_the_scores(exact, monkeypatch):
    problem = exact(2)
    sets = torch.zeros(3, 2, 3, dtype=problem.poses.dtype)
    sets[:, 1, 1] = torch.tensor([0.0, 1.5, -1.5])
    values = torch.tensor([1.0, 0.0, -1.0], dtype=sets.dtype)
    known = torch.tensor([0.0, 1.5, -1.5], dtype=sets.dtype)
    scoring(problem, monkeypatch, lambda pose: values[(pose[:, 1].abs()[:, None] - known).abs().argmin(1)])
    found = problem.search().objective
    draws = found.draws(2, exact=True)
    noise = found.losses(sets, torch.arange(2), draws).mean(0) / noise_error.SCORED
    scores = found.scores(sets, torch.arange(2))
    poses, probabilities = found.likely_poses(sets[0], 1, sets[1:], draws)
    expected = torch.softmax(scores - noise, 0)
    expected = expected * torch.sigmoid((scores[0] - objective.FITTING) / objective.FITTING_WIDTH)
    torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(poses, sets[:, 1])
    unsure = replace(found.error.condition, deviation=torch.full((2, 5), objective.RIGHT))
    found = replace(found, error=replace(found.error, condition=unsure))
    _, probabilities = found.likely_poses(sets[0], 1, sets[1:], draws)
    within = 0.682689  # one standard deviation of a normal distribution
    torch.testing.assert_close(probabilities, within * expected, rtol=1e-4, atol=1e-6)
