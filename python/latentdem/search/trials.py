"""How likely parameters are: a short restoration with each of them, all with the same noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators.base import Operator
from ..priors.base import LatentPrior
from ..solver.data_weight import MaximumLikelihood
from ..solver.e_step import Proximal
from ..solver.latentdem import LatentDEM
from ..solver.measurement import Measurement
from ..solver.passes import NO_HOOKS, Candidates, Hooks, Pass, full_steps, run_passes
from ..solver.schedules import EVERY_STEP

TRIAL = Pass(5)
TRIAL_STEPS = full_steps((TRIAL,), EVERY_STEP)


def run_trials(
    prior: LatentPrior,
    operator: Operator,
    measurement: Measurement,
    parameters: Tensor,
    seed: int,
    *,
    stage: str = "",
    hooks: Hooks = NO_HOOKS,
) -> Candidates:
    """Restores each measurement with parameters that stay as they are, to compare their `evidence`.

    Args:
        prior: latent diffusion prior.
        operator: an operator whose M-step changes nothing.
        measurement: of B images.
        parameters: (B * H, ...), those of one image next to each other.
        seed: of the noise, which is the same for all, so that chance favours none.
        stage: name of the stage.
        hooks: what follows the run.
    """
    data_weight = MaximumLikelihood()
    return run_passes(
        LatentDEM(prior, operator, Proximal(data_weight)),
        (TRIAL,),
        measurement.repeated(len(parameters) // len(measurement)),
        parameters,
        torch.Generator(measurement.y.device).manual_seed(seed),
        consistency=data_weight,
        stage=stage,
        hooks=hooks,
    )
