"""Steps of a latent from one noise level to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import arithmetic, per_sample

__all__ = ["ddim_scales", "dps_step", "renoise"]


def ddim_scales(abar_t: Tensor, abar_prev: Tensor, eta: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """sqrt(1 - abar_t), 1 / sqrt(abar_t), sqrt(abar_prev), sqrt(1 - abar_prev - s^2) and s of `dps_step`.

    All (B,), in float64, because 1 - abar loses digits at either end of the schedule.
    """
    now, prev = abar_t.double(), abar_prev.double()
    spread = eta * torch.sqrt((1 - prev) / (1 - now) * (1 - now / prev))
    noise_prev = torch.sqrt((1 - prev - spread.square()).clamp(min=0))
    return torch.sqrt(1 - now), torch.rsqrt(now), torch.sqrt(prev), noise_prev, spread


def dps_step(
    z_t: Tensor,
    eps: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    eps_uncond: Tensor | None = None,
    guidance: float = 1.0,
    eta: float = 0.0,
    noise: Tensor | None = None,
    gradient: Tensor | None = None,
    step_size: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of diffusion posterior sampling (LatentDEM Algorithm 1; DDIM, Song et al. 2021, Eq. 12 and 16).

    e = eps, or eps_uncond + guidance (eps - eps_uncond) (classifier-free guidance);
    z0 = (z_t - sqrt(1 - abar_t) e) / sqrt(abar_t);
    s = eta sqrt((1 - abar_prev) / (1 - abar_t)) sqrt(1 - abar_t / abar_prev), 0 for DDIM, the DDPM value for 1;
    z_prev = sqrt(abar_prev) z0 + sqrt(1 - abar_prev - s^2) e + s noise - step_size gradient.

    Args:
        z_t: (B, ...) noisy latent.
        eps: predicted noise, shape of z_t.
        abar_t: (B,) cumulative alpha at t, in (0, 1).
        abar_prev: (B,) cumulative alpha at the earlier timestep, in [abar_t, 1].
        eps_uncond: noise predicted without the condition, shape of z_t.
        guidance: classifier-free guidance scale, used with `eps_uncond` only.
        eta: 0 is deterministic (DDIM), 1 the ancestral step (DDPM).
        noise: standard normal, shape of z_t; needed for eta above 0.
        gradient: gradient of the data term in z_t, shape of z_t.
        step_size: (B,) factor of `gradient`.

    Returns:
        z_prev and z0, shape and dtype of z_t.
    """
    dtype = z_t.dtype
    z_t, eps = arithmetic(z_t), arithmetic(eps)
    scales = ddim_scales(abar_t, abar_prev, eta)
    noise_t, rsqrt_t, signal_prev, noise_prev, spread = (per_sample(scale, z_t) for scale in scales)
    if eps_uncond is not None:
        uncond = arithmetic(eps_uncond)
        eps = uncond + guidance * (eps - uncond)
    z0 = (z_t - noise_t * eps) * rsqrt_t
    z_prev = signal_prev * z0 + noise_prev * eps
    if noise is not None:
        z_prev = z_prev + spread * arithmetic(noise)
    if gradient is not None and step_size is not None:
        z_prev = z_prev - per_sample(step_size, z_t) * arithmetic(gradient)
    return z_prev.to(dtype), z0.to(dtype)


def renoise(z_t: Tensor, z0: Tensor, abar_t: Tensor, abar_prev: Tensor, noise: Tensor, fresh: Tensor) -> Tensor:
    """Bring a corrected clean latent back to the noise level of the earlier timestep.

    e = (z_t - sqrt(abar_t) z0) / sqrt(1 - abar_t), the noise direction that leads from z0 to z_t;
    z_prev = sqrt(abar_prev) z0 + sqrt(1 - abar_prev) (sqrt(1 - fresh) e + sqrt(fresh) noise).
    fresh = 0 is the DDIM step, fresh = 1 keeps nothing of the trajectory.

    Args:
        z_t: (B, ...) noisy latent.
        z0: corrected clean latent, shape of z_t.
        abar_t: (B,) cumulative alpha at t, in (0, 1).
        abar_prev: (B,) cumulative alpha at the earlier timestep, in (0, 1].
        noise: standard normal, shape of z_t.
        fresh: (B,) share of the variance that is fresh noise, in [0, 1].

    Returns:
        z_prev, shape and dtype of z_t.
    """
    dtype = z_t.dtype
    z_t, z0, noise = arithmetic(z_t), arithmetic(z0), arithmetic(noise)
    now, prev, share = abar_t.double(), abar_prev.double(), fresh.double()
    level = torch.sqrt(1 - prev)
    direction = (z_t - per_sample(torch.sqrt(now), z_t) * z0) * per_sample(torch.rsqrt(1 - now), z_t)
    z_prev = per_sample(torch.sqrt(prev), z_t) * z0 + per_sample(level * torch.sqrt(1 - share), z_t) * direction
    return (z_prev + per_sample(level * torch.sqrt(share), z_t) * noise).to(dtype)
