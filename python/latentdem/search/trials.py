"""How likely parameters are: a short restoration with each of them, all with the same noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..operators.base import Operator
from ..priors.base import LatentPrior
from ..solver.data_weight import MaximumLikelihood
from ..solver.e_step import Proximal
from ..solver.latentdem import LatentDEM
from ..solver.measurement import Measurement
from ..solver.passes import Pass, full_steps
from ..solver.schedules import EVERY_STEP

TRIAL = Pass(5)
TRIAL_STEPS = full_steps((TRIAL,), EVERY_STEP)


def trial(
    prior: LatentPrior, operator: Operator, measurement: Measurement, parameters: Tensor, seed: int
) -> dict[str, Any]:
    """Arguments of `run_passes` for a trial: a short restoration with parameters that stay as they are.

    The `evidence` of its candidates compares the parameters.

    Args:
        prior: latent diffusion prior.
        operator: an operator whose M-step changes nothing.
        measurement: of B images.
        parameters: (B * H, ...), those of one image next to each other.
        seed: of the noise, which is the same for all, so that chance favours none.
    """
    data_weight = MaximumLikelihood()
    return {
        "solver": LatentDEM(prior, operator, Proximal(data_weight)),
        "passes": (TRIAL,),
        "measurement": measurement.repeated(len(parameters) // len(measurement)),
        "parameters": parameters,
        "generator": torch.Generator(measurement.y.device).manual_seed(seed),
        "consistency": data_weight,
    }
