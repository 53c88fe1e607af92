"""Parametrization of a noise predictor: its training schedule and the quantity it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

TIMESTEPS = 1000  # of the training schedule, which the solver steps through
PREDICTIONS = ("epsilon", "v_prediction", "sample")
LEAST_ALPHA = 2.0**-24  # the solver divides by its root; float32 still resolves the rest of the image


def timestep_on(device: torch.device, t: int | Tensor) -> Tensor:
    """`t` on a device; a number is written there, (), as to copy it would mean to wait for a GPU."""
    return t if isinstance(t, Tensor) else torch.full((), t, device=device)


@dataclass(frozen=True)
class Parametrization:
    """Training schedule and meaning of the output, with z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) noise.

    The output is the noise ("epsilon"; Ho et al. 2020), v = sqrt(abar_t) noise - sqrt(1 - abar_t) z0
    ("v_prediction"; Salimans and Ho 2022, App. D) or z0 ("sample").

    The solver visits the timesteps t of the training schedule themselves, and t always stands for abar_t. So
    the settings of a scheduler that only define the timesteps of its own sampling and its last step are
    ignored: `steps_offset` (with 1, as in Stable Diffusion, 50 steps visit 981, 961, ..., 1 instead of 980,
    960, ..., 0; abar_t stays), `timestep_spacing`, `set_alpha_to_one` (here abar is 1 after the last step),
    `clip_sample` and `thresholding`. `rescale_betas_zero_snr` matters: it changes abar_t, and the last one
    becomes 0, at which z_t contains nothing of the image. Here it is raised to 2^-24, so that z0 can be
    computed from the noise. Outputs v and z0 are meaningful there; a predicted noise is not, and is refused.

    Attributes:
        alphas_cumprod: (1000,) float32 on the CPU, abar_t.
        prediction: "epsilon", "v_prediction" or "sample".
    """

    alphas_cumprod: Tensor
    prediction: str
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, scheduler: Any) -> Parametrization:
        """The parametrization of a diffusers scheduler.

        Raises:
            UserError: z0 does not follow from z_t, the output and abar_t with it, or it does not have 1000
                timesteps.
        """
        name, config = type(scheduler).__name__, scheduler.config
        abar = getattr(scheduler, "alphas_cumprod", None)
        prediction = config.get("prediction_type", "epsilon")
        refused = f"The scheduler {name} of this checkpoint cannot be used: "
        other_levels = config.get("use_flow_sigmas") or config.get("timestep_type") == "continuous"
        if not isinstance(abar, Tensor) or abar.ndim != 1 or other_levels:
            raise UserError(
                refused
                + "it measures noise by other levels than cumulative alphas, as flow matching and EDM do, "
                "so its output defines no clean latent here; give a checkpoint of Stable Diffusion 1.x, 2.x or "
                "XL or of unconditional latent diffusion."
            )
        if prediction not in PREDICTIONS:
            raise UserError(
                refused + f"its prediction type is '{prediction}' and must be one of {', '.join(PREDICTIONS)}."
            )
        if len(abar) != TIMESTEPS:
            raise UserError(refused + f"it has {len(abar)} training timesteps and must have {TIMESTEPS}.")
        if prediction == "epsilon" and abar[-1] <= LEAST_ALPHA:
            raise UserError(
                refused
                + "it has zero terminal SNR and predicts noise, which at the first step says nothing about "
                "the clean latent; set rescale_betas_zero_snr to false or prediction_type to v_prediction, "
                "whichever the checkpoint was trained with."
            )
        return cls(abar.detach().float().cpu().clamp_min(LEAST_ALPHA), prediction)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Parametrization:
        """The parametrization that the configuration file of a scheduler of diffusers describes.

        Args:
            config: its content. The variances are the squares of numbers, or numbers, from `beta_start` to
                `beta_end` in equal steps ("scaled_linear" as in Stable Diffusion, or "linear").

        Raises:
            KeyError: something is missing.
            ValueError: it describes another kind of schedule or prediction.
        """
        kind, prediction = config["beta_schedule"], config.get("prediction_type", "epsilon")
        steps = config["num_train_timesteps"]
        other = config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr", False)
        known = kind in ("linear", "scaled_linear") and prediction in PREDICTIONS and steps == TIMESTEPS
        if other or not known:
            raise ValueError(
                f"a schedule of {steps} steps of kind '{kind}' with prediction '{prediction}' is not known here"
            )
        power = 2 if kind == "scaled_linear" else 1
        first, last = (config[name] ** (1 / power) for name in ("beta_start", "beta_end"))
        betas = torch.linspace(first, last, steps, dtype=torch.float32) ** power
        return cls(torch.cumprod(1 - betas, dim=0), prediction)

    def noise(self, output: Tensor, z_t: Tensor, t: int | Tensor) -> Tensor:
        """The predicted noise (B, c, h, w), from the output at `z_t` (B, c, h, w) and timestep `t`.

        `t` is one for all, a number or a tensor () on the device, or (B,).
        """
        if self.prediction == "epsilon":
            return output
        signal, noise = self._shares(z_t, t)
        if self.prediction == "v_prediction":
            return signal * output + noise * z_t
        return (z_t - signal * output) / noise

    def _shares(self, like: Tensor, t: int | Tensor) -> tuple[float | Tensor, float | Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), numbers or tensors that broadcast to (B, c, h, w)."""
        if not isinstance(t, Tensor):
            abar = float(self.alphas_cumprod[t])
            return abar**0.5, (1 - abar) ** 0.5
        if t.ndim:
            some = self.alphas_cumprod.to(like)[t].view(-1, 1, 1, 1)
            return some**0.5, (1 - some) ** 0.5
        if like.device not in self._tables:  # copied once, and rounded as the numbers are
            alphas = self.alphas_cumprod.double()
            self._tables[like.device] = torch.stack([alphas**0.5, (1 - alphas) ** 0.5]).to(like.device)
        signal, noise = self._tables[like.device].index_select(1, t.view(1)).view(2).unbind()
        return signal, noise

    def guided_noise(self, output: Tensor, z_t: Tensor, t: int | Tensor, guidance: float) -> Tensor:
        """The predicted noise under classifier-free guidance, n + g (p - n) (Ho and Salimans 2022).

        Args:
            output: outputs (2B, c, h, w), first all n without the condition, then all p with it; for a guidance
                of 1 only p, (B, c, h, w). Half precision is allowed.
            z_t: (B, c, h, w); the noise has its dtype.
            t: timestep.
            guidance: the scale g.
        """
        # With little noise or little image left, the combination with the output needs more than half
        # precision.
        exact = torch.promote_types(z_t.dtype, torch.float32)
        output = output.to(exact)
        if guidance != 1:
            without, output = output.chunk(2)
            output = without + guidance * (output - without)
        return self.noise(output, z_t.to(exact), t).to(z_t.dtype)
