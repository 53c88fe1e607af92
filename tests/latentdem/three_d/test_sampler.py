"""Algorithm 2 with the exact prior."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from latentdem.solver.schedules import Annealing
from latentdem.three_d import sampler
from latentdem.three_d.config import ReconstructionConfig
from latentdem.three_d.geometry.poses import PosePosterior
from latentdem.three_d.sampler import alignment, sample

TARGETS = torch.tensor([[0.0, 1.2, 0.0], [0.1, 2.6, 0.0]])


def run(problem, poses, config=None, steps=25, seed=0, targets=TARGETS):
    generator = torch.Generator().manual_seed(seed)
    posterior = PosePosterior.certain(poses)
    return sample(
        problem.prior, problem.condition, posterior, targets, steps, config or ReconstructionConfig(), generator
    )


@pytest.mark.parametrize("views", [1, 2, 3])
def test_views_from_true_poses_are_right(exact, views):
    problem = exact(views)
    z, poses = run(problem, problem.poses)
    assert (z - problem.truth(TARGETS)).square().mean().sqrt() < 0.03  # measured: below 0.01
    assert problem.error_of(poses) < 1
    assert not poses[0].any()


@pytest.mark.parametrize("views", [2, 3])
def test_em_corrects_poses_that_are_slightly_wrong(exact, views):
    problem = exact(views)
    start = problem.poses + torch.tensor([0.12, -0.15, 0.0])
    start[0] = 0
    assert problem.error_of(start) > 8
    fixed, unmoved = run(problem, start, replace(ReconstructionConfig(), rate=0.0))
    torch.testing.assert_close(unmoved, start)
    z, poses = run(problem, start, replace(ReconstructionConfig(), rate=0.01), steps=50)
    assert problem.error_of(poses) < 1  # measured: 0.02
    truth = problem.truth(TARGETS)
    assert (z - truth).square().mean() < 0.1 * (fixed - truth).square().mean()


def test_views_are_the_mean_over_hypotheses(exact):
    """Equal hypotheses act like one; the error from a wrong one grows with its probability."""
    problem = exact(2)
    wrong = problem.poses + torch.tensor([[0.0] * 3, [0.0, 0.6, 0.0]])

    def generate(*poses, weights):
        posterior = PosePosterior(torch.stack(poses), torch.tensor(weights))
        generator = torch.Generator().manual_seed(0)
        return sample(
            problem.prior, problem.condition, posterior, TARGETS, 12, ReconstructionConfig(), generator
        )

    alone, poses = generate(problem.poses, weights=[1.0])
    same, moved = generate(problem.poses, problem.poses, weights=[0.3, 0.7])
    torch.testing.assert_close(same, alone, atol=1e-2, rtol=0)  # Adam makes rounding errors larger
    torch.testing.assert_close(moved, poses, atol=1e-3, rtol=0)
    certain, _ = generate(problem.poses, wrong, weights=[1.0, 0.0])
    torch.testing.assert_close(certain, alone, atol=1e-2, rtol=0)
    truth = problem.truth(TARGETS)
    errors = [
        float((generate(problem.poses, wrong, weights=[1 - share, share])[0] - truth).square().mean())
        for share in (0.1, 0.5, 0.9)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_single_view_is_the_prior_alone(exact):
    """With one view there is no fusion and no M-step: DDIM with its predictions (Song et al. 2021, Eq. 12)."""
    problem = exact(1)
    z = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    posed = problem.prior.posed(problem.condition[torch.zeros(2, dtype=torch.long)], TARGETS)
    abar = problem.prior.alphas_cumprod
    for t, after in [(999, 749), (749, 499), (499, 249), (249, -1)]:
        noise = problem.prior.predict_noise(z, t, posed)
        clean = (z - (1 - abar[t]).sqrt() * noise) / abar[t].sqrt()
        level = abar[after] if after >= 0 else torch.tensor(1.0)
        z = level.sqrt() * clean + (1 - level).sqrt() * noise
    torch.testing.assert_close(run(problem, problem.poses, steps=4)[0], z, atol=1e-4, rtol=1e-4)


def test_error_from_a_wrong_pose_grows_with_the_weight(exact):
    problem = exact(2)
    wrong = problem.poses + torch.tensor([[0.0] * 3, [0.0, 0.6, 0.0]])
    truth = problem.truth(TARGETS)
    errors = []
    for error in (100.0, 1.0, 0.0):
        config = replace(ReconstructionConfig(), rate=0.0, fusion=Annealing(error, error))
        errors.append(float((run(problem, wrong, config)[0] - truth).square().mean()))
    assert 10 * errors[0] < errors[1] < errors[2]


def test_an_uncertain_view_has_little_influence(exact, monkeypatch):
    """The prior predicts large variances in the upper half from view 2, whose pose is wrong."""
    problem = exact(2)
    wrong = problem.poses + torch.tensor([[0.0] * 3, [0.0, 0.6, 0.0]])
    variance = torch.ones(2, 1, 12, 12)
    variance[1, :, :6] = 1e6

    posed = problem.prior.posed

    def uncertain(condition, pose, together):
        assert together == 2
        return replace(posed(condition, pose, together), variance=variance.repeat(len(pose) // 2, 1, 1, 1))

    monkeypatch.setattr(problem.prior, "posed", uncertain)
    config = replace(ReconstructionConfig(), rate=0.0, fusion=Annealing(0.0, 0.0))
    truth = problem.truth(TARGETS)
    weighted, equal = (
        (run(problem, wrong, replace(config, pixelwise=which))[0] - truth).square().mean((0, 1, 3))
        for which in (True, False)
    )
    assert weighted[:6].mean() < 0.1 * equal[:6].mean()
    assert weighted[6:].mean() > 0.5 * equal[6:].mean()


def test_same_seed_same_views(exact):
    problem = exact(2)
    first, again, other = (run(problem, problem.poses, steps=5, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_of_any_size_give_the_same(exact, monkeypatch):
    problem = exact(2)
    z, poses = run(problem, problem.poses + 0.05 * torch.tensor([[0.0], [1.0]]), steps=8)
    monkeypatch.setattr(sampler, "MAX_BATCH", 2)
    z_small, poses_small = run(problem, problem.poses + 0.05 * torch.tensor([[0.0], [1.0]]), steps=8)
    torch.testing.assert_close(z_small, z, atol=1e-4, rtol=0)
    torch.testing.assert_close(poses_small, poses, atol=1e-4, rtol=0)


def test_alignment_losses():
    noise, fused = torch.randn(2, 3, 4, 5, 5), torch.randn(2, 4, 5, 5)
    expected = sum(
        0.3 * (noise[k, i] - fused[k]).square().sum() + (noise[k, i] - noise[k, 0]).square().sum()
        for k in range(2)
        for i in (1, 2)
    )
    torch.testing.assert_close(alignment(noise, fused, 0.3), expected)
