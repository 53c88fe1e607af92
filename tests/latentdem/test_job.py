from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from latentdem import PAPER, Posterior, Skip
from latentdem.job import Job
from latentdem.kernel_denoiser import KernelDenoiser
from latentdem.priors import EmbeddedPrior
from latentdem.schedules import EVERY_STEP

Scene = Callable[..., Tensor]


def test_parts_of_the_posterior_e_step_can_be_left_out(scene: Scene, tiny_prior: EmbeddedPrior) -> None:
    denoiser = KernelDenoiser()
    whole, _ = Job(scene(), 9, e_step="posterior").methods(tiny_prior, denoiser)
    parts = ("annealing", "gluing", "skipping")
    bare, known = Job(scene(), 9, e_step="posterior", without=parts).methods(tiny_prior, denoiser)
    assert whole.e_step == Posterior()
    assert whole.skip == Skip()
    assert bare.e_step == known.e_step == Posterior(annealing=None, gluing=0.0)
    assert bare.skip == known.skip == EVERY_STEP
    assert bare.recipe == PAPER
