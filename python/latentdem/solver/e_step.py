"""The two E-steps, which pull a diffusion step towards the measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

import latentdem_ext as ext

from ..operators.base import Operator
from ..priors.base import LatentPrior
from .data_weight import DataWeight, ModellingError, Prediction
from .schedules import Annealing


@dataclass
class Move:
    """One full step of the diffusion, batch and samples flattened to N = B * S.

    Attributes:
        t: timestep, a number or a tensor () on the device.
        abar, abar_next: (N,) cumulative alphas before and after the step.
        z_t: (N, c, h, w) noisy latent; eps: its predicted noise; z0: its clean prediction.
        x0: (N, C, H, W) decoded z0; y: (N, C, h, w); parameters: (N, ...) after the M-step.
        variance: (N,) sigma^2 of the measurement noise; noise: (N, c, h, w) fresh unit noise.
    """

    t: int | Tensor
    abar: Tensor
    abar_next: Tensor
    z_t: Tensor
    eps: Tensor
    z0: Tensor
    x0: Tensor
    y: Tensor
    parameters: Tensor
    variance: Tensor
    noise: Tensor


class EStep(Protocol):
    """`differentiate` makes the solver record the graph from z_t to x0; `__call__` returns z_{t-1}.

    One with an attribute `capturable` that is true is captured in CUDA graphs (`solver.graph`): it asks the
    device for no values, and takes a `Move.t` that is a tensor.
    """

    @property
    def differentiate(self) -> bool: ...

    def __call__(self, move: Move, prior: LatentPrior, operator: Operator) -> Tensor: ...


@dataclass(frozen=True)
class Proximal:
    """Consistency in image space, encoded and re-noised; no back-propagation.

    x' = argmin_x ||y - A x||^2 / v + ||x - x0||^2 / r^2, the schedule's r_t^2 being (1 - abar_t) / abar_t,
    z_{t-1} = sqrt(abar_{t-1}) E(x') + sqrt(1 - abar_{t-1}) (old noise direction and fresh noise).

    Attributes:
        data_weight: gives v / r^2.
        fresh: share of the variance of the new noise that is fresh instead of the old direction.
        iterations: conjugate gradient iterations per step, where there is no closed form.
    """

    data_weight: DataWeight = ModellingError()
    fresh: float = 1.0
    iterations: int = 4
    differentiate: bool = field(default=False, init=False)
    capturable: bool = field(default=True, init=False)

    def __call__(self, move: Move, prior: LatentPrior, operator: Operator) -> Tensor:
        r2 = (1 - move.abar) / move.abar
        prediction = Prediction(operator, move.x0, move.parameters, move.y, move.variance, r2, move.t)
        rho = self.data_weight(prediction)
        x = operator.proximal(move.x0, move.parameters, move.y, rho, self.iterations)
        # The encoder was not trained on values beyond black and white, which appear beyond the frame.
        z0 = prior.encode(x.clamp(-1, 1))
        return ext.renoise(move.z_t, z0, move.abar, move.abar_next, move.noise, self.fresh)


@dataclass(frozen=True)
class Posterior:
    """Diffusion posterior sampling through decoder and noise predictor, with gluing (Algorithm 1).

    form "squared" (the paper): z_{t-1} = z' - scale grad [ ||y - A x0||^2 / (2 zeta_t sigma^2)
    + gluing ||z0 - E(x0 + A^T (y - A x0))||^2 ].
    form "norm" (the authors' release): the norms themselves, weights s_t and s_t gluing, with s_t rising from
    0.1 at t = 1000 to 0.8 at t = 600: z_{t-1} = z' - scale s_t grad [ ||y - A x0|| + gluing ||...|| ].

    Attributes:
        gluing: weight of the gluing term, 0 switches it off (released code: 0.1).
        annealing: zeta_t of the squared form; s_t = 0.8 / zeta_t' of the norm form has the same ends and
            `annealing=None` holds both at their last value.
        scale: factor of the whole gradient step.
        eta: 0 for DDIM, 1 for DDPM.
    """

    form: Literal["norm", "squared"] = "norm"
    annealing: Annealing | None = field(default_factory=Annealing)
    gluing: float = 0.1
    scale: float = 1.0
    eta: float = 0.0
    differentiate: bool = field(default=True, init=False)
    capturable: bool = field(default=True, init=False)

    def __call__(self, move: Move, prior: LatentPrior, operator: Operator) -> Tensor:
        with torch.enable_grad():
            gap = operator.fill(move.y, move.x0.detach(), move.parameters) - operator(move.x0, move.parameters)
            fidelity = gap.square().sum((1, 2, 3))
            glue = torch.zeros_like(fidelity)
            if self.gluing:
                target = move.x0 + operator.adjoint(gap, move.x0, move.parameters)
                glue = (move.z0 - prior.encode(target)).square().sum((1, 2, 3))
            if self.form == "norm":
                loss = fidelity.sqrt() + self.gluing * glue.clamp_min(1e-12).sqrt()
            else:
                zeta = self.annealing(move.t) if self.annealing else 1.0
                loss = fidelity / (2 * zeta * move.variance) + self.gluing * glue
            (gradient,) = torch.autograd.grad(loss.sum(), move.z_t)
        step = self.scale * (self._norm_weight(move.t) if self.form == "norm" else 1.0)
        return ext.dps_step(
            move.z_t.detach(),
            move.eps.detach(),
            move.abar,
            move.abar_next,
            eta=self.eta,
            noise=move.noise,
            gradient=gradient,
            step_size=torch.ones_like(move.abar) * step,
        )[0]

    def _norm_weight(self, t: int | Tensor) -> float | Tensor:
        """s_t: 0.1 at t = 1000, exponentially to 0.8 / `end` at `t_end`, then constant."""
        if self.annealing is None:
            return 0.8
        fraction = Annealing(0.0, 1.0, self.annealing.t_end)(t)
        weight: float | Tensor = 0.1 * (8.0 / self.annealing.end) ** fraction
        return weight
