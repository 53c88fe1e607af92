"""The network that scores poses of two views."""

from __future__ import annotations

import torch

from latentdem.priors.loading import load_network
from latentdem.three_d.priors.pose_scorer import LARGEST, PoseScorer

from ..tiny_priors import inputs, scorer, tiny


def features(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 16, 8, 8, generator=generator), torch.randn(rows, 8, 8, 8, generator=generator)


def test_rows_do_not_depend_on_each_other():
    model, (rendered, z) = scorer(), features()
    together = model(rendered, z)
    assert together.shape == (3,)
    torch.testing.assert_close(together[1:2], model(rendered[1:2], z[1:2]))


def test_the_network_sees_the_deviation_in_units_of_the_predicted_one():
    """A first layer that keeps one channel alone gives the clipped deviation of that channel."""
    model, (rendered, z) = scorer(), features()
    seen = []
    model.body[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(rendered, z)
    deviation = (z - rendered[:, :8]) / rendered[:, 8:9].exp().sqrt()
    torch.testing.assert_close(seen[0][:, 16:24], z)
    torch.testing.assert_close(seen[0][:, 24:], deviation.clamp(-LARGEST, LARGEST))
    assert seen[0][:, 24:].abs().max() == LARGEST


def test_scores_are_those_of_the_prior():
    model = scorer()
    prior = tiny(scorer=model)
    x, _, pose = inputs(prior)
    posed, z = prior.posed(prior.condition(x), pose), prior.encode(x.flip(0))
    torch.testing.assert_close(prior.score(posed, z), model(posed.parts[0], z))


def test_weights_are_read_again(tmp_path):
    model, (rendered, z) = scorer(), features()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(load_network(PoseScorer, tmp_path)(rendered, z), model(rendered, z))
