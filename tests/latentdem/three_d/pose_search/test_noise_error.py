"""The noise error of pairs of views."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from latentdem.three_d.geometry.cameras import relative_pose
from latentdem.three_d.pose_search.noise_error import (
    DEVIATIONS,
    DISTANCE_SCALE,
    DISTANCE_USUAL,
    POLAR_SCALE,
    POLAR_SPREAD,
    POLAR_USUAL,
    PRINCIPAL_SCALE,
    PRINCIPAL_USUAL,
    SCORED,
    Draw,
    PairError,
)

from ..tiny_priors import finite, in_double_precision, inputs, scorer, tiny


def test_principal_points_off_their_estimate_cost():
    prior = tiny()
    x, _, _ = inputs(prior)
    condition, pair = prior.condition(x).cropped(), (torch.tensor([0]), torch.tensor([1]))
    cameras = torch.tensor([[[1.2, 0.0, 0.0, 0.01, 0.0], [1.3, 0.8, 0.05, 0.0, -0.02]]])
    draws = PairError(prior, condition, prior.encode(x)).draws(2, torch.Generator().manual_seed(0))
    errors = [
        PairError(prior, estimate, prior.encode(x))(*pair, cameras, draws)
        for estimate in (replace(condition, principal=cameras[0, :, 3:]), condition)
    ]
    expected = torch.full((2, 1), (0.01**2 + 0.02**2) / PRINCIPAL_SCALE**2)
    torch.testing.assert_close(errors[1] - errors[0], expected, rtol=1e-2, atol=1e-4)


def test_certain_principal_points_and_distances_cost_more():
    """In proportion to what the prior expects; deviations are clamped to their bounds."""
    prior = tiny()
    x, _, _ = inputs(prior)
    pair = torch.tensor([0]), torch.tensor([1])
    cameras = torch.tensor([[[1.2, 0.0, 0.1, 0.03, 0.0], [1.3, 0.8, -0.05, 0.0, -0.02]]])
    usual = torch.tensor([POLAR_USUAL, 0.0, DISTANCE_USUAL, PRINCIPAL_USUAL, PRINCIPAL_USUAL])
    condition = replace(prior.condition(x).cropped(), polar=cameras[0, :, 0], deviation=usual.expand(2, 5))
    certain = replace(condition, deviation=usual * torch.tensor([[0.5], [100.0]]))
    cost = []
    for estimate in (condition, certain):
        error = PairError(prior, estimate, prior.encode(x))
        cost.append(error(*pair, cameras, error.draws(2, torch.Generator().manual_seed(0))))
    squares = torch.tensor([(0.03 / PRINCIPAL_SCALE) ** 2, (0.02 / PRINCIPAL_SCALE) ** 2])
    squares = squares + (torch.tensor([0.1, 0.05]) / DISTANCE_SCALE).square()
    expected = (squares * torch.tensor([2.0**2 - 1, DEVIATIONS[1] ** -2 - 1])).sum()
    torch.testing.assert_close(cost[1] - cost[0], expected.expand(2, 1), rtol=1e-2, atol=1e-4)


def test_scores_count_as_much_as_they_should():
    """Both directions of a pair are scored, and their sum, with that of the heights, lowers the error."""
    prior = tiny(scorer=scorer())
    x, _, _ = inputs(prior)
    error = PairError(prior, prior.condition(x), prior.encode(x))
    pair, cameras = (torch.tensor([0]), torch.tensor([1])), torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]]])
    scores = error.scores(*pair, cameras)
    there = prior.posed(error.condition[:1].at(cameras[:, 0]), relative_pose(cameras[:, 1], cameras[:, 0]))
    back = prior.posed(error.condition[1:].at(cameras[:, 1]), relative_pose(cameras[:, 0], cameras[:, 1]))
    expected = prior.score(there, error.latents[1:]) + prior.score(back, error.latents[:1])
    cauchy = torch.distributions.Cauchy(error.condition.polar, POLAR_SPREAD)
    expected = expected + (cauchy.log_prob(cameras[0, :, 0]) - cauchy.log_prob(error.condition.polar)).sum()
    torch.testing.assert_close(scores, expected)
    draws = error.draws(2, torch.Generator().manual_seed(0))
    plain, scored = (error(*pair, cameras, draws, scored) for scored in (False, True))
    torch.testing.assert_close(plain - scored, SCORED * expected.expand(2, 1), rtol=1e-4, atol=1e-2)


def test_mirror_images_are_scored_at_mirrored_cameras():
    """With them, a pair of views and its mirror image have the same score, which is the mean of both."""
    prior = tiny(scorer=scorer())
    x, _, _ = inputs(prior)
    plain, mirror = (PairError(prior, prior.condition(view), prior.encode(view)) for view in (x, x.flip(-1)))
    pair = torch.tensor([0]), torch.tensor([1])
    cameras = torch.tensor([[[1.2, 0.0, 0.0, 0.02, 0.01], [1.3, 0.8, 0.1, 0.03, -0.02]]])
    mirrored = cameras * torch.tensor([1, -1, 1, -1, 1])
    expected = (plain.scores(*pair, cameras) + mirror.scores(*pair, mirrored)) / 2
    torch.testing.assert_close(replace(plain, mirrored=mirror).scores(*pair, cameras), expected)
    torch.testing.assert_close(replace(mirror, mirrored=plain).scores(*pair, mirrored), expected)


def test_priors_without_a_scorer_give_none():
    for prior in (tiny(), finite()):
        x, _, _ = inputs(prior)
        error = PairError(prior, prior.condition(x), prior.encode(x))
        cameras = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.8, 0.0]]]).to(x)
        assert error.scores(torch.tensor([0]), torch.tensor([1]), cameras) is None


def test_gradient_of_the_error_in_both_cameras():
    prior = in_double_precision(tiny())
    x, _, _ = inputs(prior, dtype=torch.float64)
    error = PairError(prior, prior.condition(x), prior.encode(x))
    draws = error.draws(1, torch.Generator().manual_seed(0))
    pair = torch.tensor([0]), torch.tensor([1])
    cameras = torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.05]]], dtype=torch.float64)
    direction = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    step = 1e-7
    ahead, behind = (error(*pair, cameras + sign * step * direction, draws) for sign in (1, -1))
    slope = (error.gradient(*pair, cameras, draws[0]) * direction).sum()
    torch.testing.assert_close(slope, ((ahead - behind) / (2 * step))[0, 0], rtol=1e-4, atol=1e-7)


def test_expected_error_is_the_mean_over_noises():
    """Against many draws of the noise, with an untrained network, which predicts by mean and variance alone."""
    prior, copies = tiny(), 50  # the same pair many times in one batch, each with its own noise
    x, _, _ = inputs(prior)
    index, first = torch.arange(2).repeat(copies), torch.arange(0, 2 * copies, 2)
    error = PairError(prior, prior.condition(x)[index], prior.encode(x)[index])
    cameras = torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]]]).repeat(copies, 1, 1)
    generator = torch.Generator().manual_seed(0)
    for t in (250, 600, 850):
        draws = [Draw(t, torch.randn(error.latents.shape, generator=generator)) for _ in range(6)]
        sampled = error(first, first + 1, cameras, draws).flatten()
        expected = error(first[:1], first[:1] + 1, cameras[:1], [Draw(t, None)])[0]
        deviation = sampled.std() / len(sampled) ** 0.5
        assert deviation < 0.02 * expected
        assert (sampled.mean() - expected).abs() < 4 * deviation


def test_only_priors_that_predict_mean_views_do_without_noise():
    generator = torch.Generator()
    for prior, without in ((tiny(), True), (finite(), False)):
        error = PairError(
            prior, prior.condition(torch.ones(2, 3, prior.image_size, prior.image_size)), torch.ones(2, 1)
        )
        assert [draw.noise is None for draw in error.draws(2, generator, rough=True)] == [without] * 2
        assert all(draw.noise is not None for draw in error.draws(2, generator))


def test_polar_angles_off_their_estimate_cost():
    prior = tiny()
    x, _, _ = inputs(prior)
    condition = prior.condition(x)
    cameras = torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]]])
    errors = []
    for estimate in (torch.tensor([1.2, 1.3]), torch.tensor([1.0, 1.4])):
        error = PairError(prior, condition.at(F.pad(estimate[:, None], (0, 2))), prior.encode(x))
        draws = error.draws(2, torch.Generator().manual_seed(0))
        errors.append(error(torch.tensor([0]), torch.tensor([1]), cameras, draws))
    expected = torch.full((2, 1), (0.2**2 + 0.1**2) / POLAR_SCALE**2)
    torch.testing.assert_close(errors[1] - errors[0], expected, rtol=1e-2, atol=1e-4)


def test_certain_polar_angles_cost_more():
    """In the noise error and in the scores; deviations are clamped to their bounds."""
    prior = tiny(scorer=scorer())
    x, _, _ = inputs(prior)
    pair, cameras = (torch.tensor([0]), torch.tensor([1])), torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]]])
    condition = prior.condition(x)
    usual = replace(condition, polar=torch.tensor([1.0, 1.4]), deviation=torch.full((2, 5), POLAR_USUAL))
    certain = replace(usual, deviation=POLAR_USUAL * torch.tensor([0.5, 100.0])[:, None].expand(2, 5))
    errors = [PairError(prior, estimate, prior.encode(x)) for estimate in (usual, certain)]
    factors = torch.tensor([2.0, 1 / DEVIATIONS[1]])
    drift = torch.tensor([0.2, 0.1]) / POLAR_SCALE
    cost = [error(*pair, cameras, error.draws(2, torch.Generator().manual_seed(0))) for error in errors]
    expected = ((factors * drift).square() - drift.square()).sum()
    torch.testing.assert_close(cost[1] - cost[0], expected.expand(2, 1), rtol=1e-2, atol=1e-4)
    drift = drift * POLAR_SCALE / POLAR_SPREAD
    expected = (drift.square().log1p() - (factors * drift).square().log1p()).sum()
    torch.testing.assert_close(
        errors[1].scores(*pair, cameras) - errors[0].scores(*pair, cameras), expected[None]
    )


def test_the_misfit_is_that_of_the_worse_direction_in_units_of_the_predicted_variance():
    prior = tiny()
    x, _, _ = inputs(prior, 3)
    error = PairError(prior, prior.condition(x), prior.encode(x))
    first, second = torch.tensor([0, 1]), torch.tensor([1, 2])
    cameras = torch.tensor([[[1.2, 0.0, 0.0], [1.3, 0.8, 0.0]], [[1.2, 0.0, 0.0], [1.0, -0.6, 0.0]]])
    found = error.misfit(first, second, cameras)
    torch.testing.assert_close(error.misfit(second, first, cameras.flip(1)), found)
    ways = []
    for known, target, (here, there) in (
        (first, second, cameras.unbind(1)),
        (second, first, cameras.flip(1).unbind(1)),
    ):
        posed = prior.posed(error.condition[known].at(here), there - here)
        ways.append(((posed.mean - error.latents[target]).square() / posed.variance).flatten(1).mean(1))
    torch.testing.assert_close(found, ways[0].maximum(ways[1]))


def test_priors_of_samples_have_no_misfit():
    prior = finite()
    x, _, _ = inputs(prior, dtype=torch.float64)
    error = PairError(prior, prior.condition(x), prior.encode(x))
    assert error.misfit(torch.tensor([0]), torch.tensor([1]), torch.zeros(1, 2, 3, dtype=torch.float64)) is None
