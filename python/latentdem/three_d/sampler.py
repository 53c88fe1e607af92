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
from .view_prior import PosedCondition, ViewCondition, ViewPrior

START = 700  # timestep that views begin at where a prior foretells them without noise


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

    with lambda_t rising from 0 to 1 and the steps becoming smaller. Source: LatentDEM, Algorithm 2. Where the
    prior foretells views without noise, they begin as that and as noisy as at the timestep `START` (Meng et al.
    2022, *SDEdit*); elsewhere as noise.

    Args:
        prior: of the views.
        condition: of n known views.
        poses: (n, 3) of these relative to the first, where they start.
        targets: (K, 3) poses of the wanted views relative to the first known one.
        steps: diffusion steps from pure noise; from `START` the proportional share of them.
        recipe: constants.
        generator: of the first noise; nothing else is random.
        on_step: called after every step.
        resume: goes on from there, with the same bits on a CPU.
    """
    moving = MovingPoses(poses[None], recipe.radius)
    moves = recipe.rate > 0 and len(poses) > 1
    condition = prior.agree(condition, poses)
    parts = targets.split(max(1, MAX_BATCH // len(poses)))
    # Where no pose moves, this is the same in all steps.
    still = [_posed(prior, condition, relative_pose(part[:, None], poses)) for part in parts]
    foretold = still[0].rows.mean is not None
    pairs = timesteps(steps, START) if foretold else timesteps(steps)
    shape = (len(targets), *prior.latent_shape)
    noise = torch.randn(shape, generator=generator, dtype=poses.dtype).to(poses.device)
    if resume is None:
        z = prior.temperature * noise
        if foretold:
            abar = float(prior.alphas_cumprod[START])
            mean = torch.cat([_mean(seen, recipe) for seen in still])
            z = abar**0.5 * mean + (1 - abar) ** 0.5 * z
    else:
        z = resume.latents.to(poses)
        moving.restore(resume.moving)
    made = 0 if resume is None else resume.step
    for step, (t, after) in enumerate(pairs[made:], made + 1):
        abar = float(prior.alphas_cumprod[t])
        abar_after = float(prior.alphas_cumprod[after]) if after >= 0 else 1.0
        gradient = torch.zeros_like(poses)
        latents = []
        for i, (z_part, target) in enumerate(zip(z.split([len(part) for part in parts]), parts, strict=True)):
            told = relative_pose(target[:, None], moving.poses[0])
            with torch.set_grad_enabled(moves):
                seen = _posed(prior, condition, told.requires_grad_()) if moves else still[i]
                noise = _predict(prior, z_part, t, seen)
            variance = seen.variance.detach()
            fused = fuse(noise.detach(), _weighed(variance, recipe), recipe.fusion(t))
            levels = (torch.full((len(z_part),), level).to(z) for level in (abar, abar_after))
            latents.append(dps_step(z_part, fused, *levels)[0])
            if moves:
                # With the same z_t, z_{t-1} of two predictions differ by this multiple of their difference.
                scale = (1 - abar_after) ** 0.5 - (abar_after * (1 - abar) / abar) ** 0.5
                with torch.enable_grad():
                    loss = alignment(noise, fused, 1 - t / 1000) * scale**2
                (part,) = torch.autograd.grad(loss, told)
                gradient[1:] -= part[:, 1:].sum(0)  # the known camera is subtracted from the wanted one
        z = torch.cat(latents)
        if moves:
            moving.move(gradient[None], recipe.rate * t / 1000)
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


@dataclass(frozen=True)
class _Seen:
    """What n known views say of k wanted ones: k n rows, and their variance (k, n, 1, h, w)."""

    rows: PosedCondition
    variance: Tensor


def _weighed(variance: Tensor, recipe: Recipe) -> Tensor:
    """By which the views are fused."""
    return variance if recipe.pixelwise else torch.ones_like(variance)


def _mean(seen: _Seen, recipe: Recipe) -> Tensor:
    """The wanted latents (k, c, h, w) as all known views foretell them."""
    assert seen.rows.mean is not None
    mean = seen.rows.mean.unflatten(0, seen.variance.shape[:2])
    return fuse(mean, _weighed(seen.variance, recipe), 0.0)


def _posed(prior: ViewPrior, condition: ViewCondition, told: Tensor) -> _Seen:
    """Of the n known views and poses (k, n, 3) relative to these."""
    wanted, known = told.shape[:2]
    rows = prior.posed(condition[torch.arange(known).repeat(wanted)], told.reshape(-1, 3), known)
    return _Seen(rows, rows.variance.unflatten(0, (wanted, known)))


def _predict(prior: ViewPrior, z: Tensor, t: int, seen: _Seen) -> Tensor:
    """Noise (k, n, c, h, w) in k wanted views (k, c, h, w) as n known ones predict it.

    Differentiable in the poses where those of views 2 to n move; view 1 takes no part in that.
    """
    wanted, known = seen.variance.shape[:2]
    if not torch.is_grad_enabled():
        noise = prior.predict_noise(z.repeat_interleave(known, 0), t, seen.rows)
        return noise.unflatten(0, (wanted, known))
    index = torch.arange(wanted * known).view(wanted, known)

    def part(views: Tensor) -> Tensor:
        rows = z.repeat_interleave(views.shape[1], 0)
        return prior.predict_noise(rows, t, seen.rows[views.flatten()]).unflatten(0, (wanted, -1))

    with torch.no_grad():
        first = part(index[:, :1])
    return torch.cat([first, part(index[:, 1:])], dim=1)
