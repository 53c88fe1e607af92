"""The choice among densities over camera poses: short restorations and the score of the gradients decide.

In the corners, where the kernels of different rolls differ most, the prior restores a window with the kernel
that each density has there (`trial`). What has clearly less evidence is left out: kernels that are too small,
whose score is good because they explain a picture that is still blurred. Among the others the score decides, as
the evidence does not tell good kernels from slightly too wide ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from latentdem_ext.vae import Window

from ..operators import Blur
from ..priors.base import LatentPrior
from ..solver.measurement import Measurement
from ..solver.passes import Hooks, run_passes
from .camera_poses import KernelField
from .layout import Layout
from .trials import TRIAL_STEPS, trial
from .varying_start import field_score

_WINDOW = 128  # pixels a side of a window
_EVIDENCE_MARGIN = 0.01  # what has less evidence than the best one by more is left out


def choice_work(layout: Layout, densities: int) -> int:
    """Pixels of the full EM steps that the choice among so many densities takes."""
    side = min(_WINDOW, layout.height, layout.width)
    return 4 * densities * TRIAL_STEPS * layout.frame_of_part(side, side).pixels


@torch.no_grad()
def most_plausible_field(
    prior: LatentPrior,
    operator: Callable[..., Blur],
    photograph: Measurement,
    fields: list[KernelField],
    seed: int,
    hooks: Hooks,
) -> KernelField:
    """The field with the best score among those whose evidence, a mean over corners, is close to the greatest.

    Args:
        prior: latent diffusion prior.
        operator: makes the operator, see `BlindSearch`.
        photograph: one, on its own pixels.
        fields: of one kernel size.
        seed: of the noise of the trials.
        hooks: what follows the run.
    """
    size = fields[0].kernel_size
    evidence = torch.zeros(len(fields), device=photograph.y.device)
    for window in _corners(*photograph.size):
        part = photograph.window(*window)
        kernels = torch.cat([field.in_window(*window) for field in fields])
        frame = Layout(*part.size, size, part.circular).frame_of_part(*part.size)
        measurement = frame.extend(part)
        blur = operator(size, mask=measurement.mask, fixed=True)
        tried = run_passes(**trial(prior, blur, measurement, kernels, seed), stage="kernel search", hooks=hooks)
        evidence = evidence + tried.evidence.nan_to_num(nan=-torch.inf) / 4
    plausible = (evidence >= evidence.max() - _EVIDENCE_MARGIN).tolist()
    scored = [(field_score(photograph, fields[n]), n) for n, possible in enumerate(plausible) if possible]
    return fields[min(scored)[1]]


def _corners(height: int, width: int) -> list[Window]:
    """Windows in the corners of a photograph."""
    rows, columns = ((slice(0, min(_WINDOW, n)), slice(max(n - _WINDOW, 0), n)) for n in (height, width))
    return [(row, column) for row in rows for column in columns]
