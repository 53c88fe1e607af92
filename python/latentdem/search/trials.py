"""How likely parameters are: a short restoration with each of them, all with the same noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.base import Operator
from ..priors.base import LatentPrior
from ..solver.data_weight import MaximumLikelihood
from ..solver.e_step import Proximal
from ..solver.latentdem import LatentDEM
from ..solver.passes import NO_HOOKS, Candidates, Hooks, Pass, full_steps, run_passes
from ..solver.schedules import EVERY_STEP

TRIAL = Pass(5)
TRIAL_STEPS = full_steps((TRIAL,), EVERY_STEP)


def tried(
    prior: LatentPrior,
    operator: Operator,
    y: Tensor,
    parameters: Tensor,
    noise_sigma: Tensor,
    seed: int,
    *,
    iterations: int = 4,
    stage: str = "",
    hooks: Hooks = NO_HOOKS,
) -> Candidates:
    """Restores measurements with parameters that stay as they are; what counts is `evidence` of the result.

    Args:
        prior: latent diffusion prior.
        operator: whose M-step moves nothing.
        y: (B, C, h, w); parameters: (B * H, ...), those of one image together; noise_sigma: (B,).
        seed: of the noise, which is the same for all, so that chance favours none.
        iterations: of conjugate gradients per step, where there is no closed form.
        hooks: what is told about the run while it goes on.
    """
    each, data_weight = len(parameters) // len(y), MaximumLikelihood()
    return run_passes(
        LatentDEM(prior, operator, Proximal(data_weight, iterations=iterations)),
        operator,
        (TRIAL,),
        y.repeat_interleave(each, 0),
        parameters,
        noise_sigma.repeat_interleave(each),
        torch.Generator(y.device).manual_seed(seed),
        consistency=data_weight,
        stage=stage,
        hooks=hooks,
    )
