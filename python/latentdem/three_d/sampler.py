"""Algorithm 2: views from given cameras, out of all known views at once, while their poses move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdem_ext import dps_step

from ..schedules import timesteps
from .cameras import relative_pose
from .fusion import fuse
from .noise_error import MAX_BATCH
from .poses import MovingPoses
from .recipe import Recipe
from .view_prior import ViewCondition, ViewPrior


@dataclass(frozen=True)
class Sampled:
    """How far the views are, between two steps.

    Attributes:
        step: number of steps that are made.
        steps: of all.
        latents: (K, c, h, w) of the wanted views.
        moving: `MovingPoses.state`.
    """

    step: int
    steps: int
    latents: Tensor
    moving: dict[str, Tensor]


@torch.no_grad()
def sample(
    prior: ViewPrior,
    condition: ViewCondition,
    poses: Tensor,
    targets: Tensor,
    steps: int,
    recipe: Recipe,
    generator: torch.Generator,
    on_step: Callable[[Sampled], None] = lambda state: None,
    resume: Sampled | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents (K, c, h, w) of the wanted views, and the poses (n, 3) of the known ones after the M-steps.

    At every timestep each known view predicts the noise of each wanted one. E-step: the predictions are fused
    and make one DDIM step. M-step: the unknown poses move against the gradient of

        lambda_t |z_{t-1}(y_i) - z_{t-1}(fused)|^2 + |z_{t-1}(y_i) - z_{t-1}(y_1)|^2,

    with lambda_t rising from 0 to 1 and the steps becoming smaller. Source: LatentDEM, Algorithm 2.

    Args:
        prior: of the views.
        condition: of n known views.
        poses: (n, 3) of these relative to the first, where they start.
        targets: (K, 3) poses of the wanted views relative to the first known one.
        steps: diffusion steps.
        recipe: constants.
        generator: of the first noise; nothing else is random.
        on_step: called after every step.
        resume: goes on from there, with the same bits on a CPU.
    """
    moving = MovingPoses(poses[None], recipe.radius)
    if resume is None:
        shape = (len(targets), *prior.latent_shape)
        noise = torch.randn(shape, generator=generator, dtype=poses.dtype)
        z = prior.temperature * noise.to(poses.device)
    else:
        z = resume.latents.to(poses)
        moving.restore(resume.moving)
    moves = recipe.rate > 0 and len(poses) > 1
    pairs = timesteps(steps)
    together = max(1, MAX_BATCH // len(poses))
    made = 0 if resume is None else resume.step
    for step, (t, after) in enumerate(pairs[made:], made + 1):
        abar = float(prior.alphas_cumprod[t])
        abar_after = float(prior.alphas_cumprod[after]) if after >= 0 else 1.0
        gradient = torch.zeros_like(moving.poses)
        latents = []
        for z_part, target in zip(z.split(together), targets.split(together), strict=True):
            with torch.set_grad_enabled(moves):
                told = relative_pose(target[:, None], moving.poses).requires_grad_(moves)
                noise = _predict(prior, z_part, t, condition, told)
            weighed = recipe.pixelwise and len(poses) > 1
            variance = _variance(prior, condition, told.detach()) if weighed else torch.ones_like(noise)
            fused = fuse(noise.detach(), variance, recipe.fusion(t))
            levels = (torch.full((len(z_part),), level).to(z) for level in (abar, abar_after))
            latents.append(dps_step(z_part, fused, *levels)[0])
            if moves:
                # With the same z_t, z_{t-1} of two predictions differ by this multiple of their difference.
                scale = (1 - abar_after) ** 0.5 - (abar_after * (1 - abar) / abar) ** 0.5
                with torch.enable_grad():
                    loss = alignment(noise, fused, 1 - t / 1000) * scale**2
                (part,) = torch.autograd.grad(loss, told)
                gradient -= part.sum(0)  # the known camera is subtracted from the wanted one
        z = torch.cat(latents)
        if moves:
            moving.move(gradient, recipe.rate * t / 1000)
        on_step(Sampled(step, len(pairs), z, moving.state))
    return z, moving.poses[0]


def alignment(noise: Tensor, fused: Tensor, ratio: float) -> Tensor:
    """How far predictions are from the fused one, times `ratio`, and from those of the first view: a number.

    Args:
        noise: (K, n, c, h, w) of each known view; the gradient goes through these alone.
        fused: (K, c, h, w).
        ratio: lambda_t.
    """
    others = noise[:, 1:]
    to_fused = (others - fused.detach()[:, None]).square().sum()
    return ratio * to_fused + (others - noise[:, :1].detach()).square().sum()


def _predict(prior: ViewPrior, z: Tensor, t: int, condition: ViewCondition, told: Tensor) -> Tensor:
    """Noise (k, n, c, h, w) in k wanted views as the n known ones predict it; `told` is (k, n, 3)."""
    rows = z.repeat_interleave(told.shape[1], 0)
    noise = prior.predict_noise(rows, t, _paired(condition, told), told.reshape(-1, 3))
    return noise.unflatten(0, told.shape[:2])


def _variance(prior: ViewPrior, condition: ViewCondition, told: Tensor) -> Tensor:
    """Of these predictions, (k, n, 1, h, w)."""
    return prior.variance(_paired(condition, told), told.reshape(-1, 3)).unflatten(0, told.shape[:2])


def _paired(condition: ViewCondition, told: Tensor) -> ViewCondition:
    """The n known views once for each of the k wanted ones; `told` is (k, n, 3)."""
    wanted, known = told.shape[:2]
    return condition[torch.arange(known).repeat(wanted)]
