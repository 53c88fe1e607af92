"""Algorithm 2: views from given cameras, out of all known views at once, while their poses move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdem_ext import dps_step

from ..solver.schedules import timesteps
from .cameras import relative_pose
from .config import ReconstructionConfig
from .fusion import fuse
from .pose_search.noise_error import MAX_BATCH
from .poses import Beliefs, MovingPoses
from .priors.base import PosedCondition, ViewCondition, ViewPrior, joined

START = 60  # timestep that views begin at where a prior foretells them without noise


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
    beliefs: Beliefs,
    targets: Tensor,
    steps: int,
    recipe: ReconstructionConfig,
    generator: torch.Generator,
    on_step: Callable[[Sampled], None] = lambda state: None,
    resume: Sampled | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents (K, c, h, w) of the wanted views, and the likeliest poses (n, 3) of the known ones in the end.

    At every timestep each known view predicts the noise of each wanted one, under each of the B hypotheses of
    the poses. E-step: the predictions of the views are fused, their mean over the hypotheses is taken, and it
    makes one DDIM step. M-step: the unknown poses of the likeliest hypothesis move against the gradient of

        lambda_t |z_{t-1}(y_i) - z_{t-1}(fused)|^2 + |z_{t-1}(y_i) - z_{t-1}(y_1)|^2,

    with lambda_t rising from 0 to 1 and the steps becoming smaller. Source: LatentDEM, Algorithm 2; the mean
    over hypotheses is the E-step's over what it does not know. Where the
    prior foretells views without noise, they begin as that and as noisy as at the timestep `START` (Meng et al.
    2022, *SDEdit*); elsewhere as noise.

    Args:
        prior: of the views.
        condition: of n known views.
        beliefs: in which poses they may be, where these start.
        targets: (K, 3) poses of the wanted views relative to the first known one.
        steps: diffusion steps from pure noise; from `START` the proportional share of them.
        recipe: constants.
        generator: of the first noise; nothing else is random.
        on_step: called after every step.
        resume: goes on from there, with the same bits on a CPU.
    """
    poses, weights = beliefs.poses, beliefs.weights.to(beliefs.cameras).view(-1, 1, 1, 1, 1)
    hypotheses, known = poses.shape[:2]
    moving = MovingPoses(poses[:1], recipe.radius)
    moves = recipe.rate > 0 and known > 1
    each = zip(beliefs.cameras, poses, strict=True)
    condition = joined([prior.agree(condition.at(cameras), pose) for cameras, pose in each])
    parts = targets.split(max(1, MAX_BATCH // (hypotheses * known)))
    start = [_posed(prior, condition, _told(part, poses)) for part in parts]
    foretold = start[0].rows.mean is not None
    # What does not move is the same in all steps.
    still = [seen.hypotheses(slice(1, None)) for seen in start] if moves else start
    pairs = timesteps(steps, START) if foretold else timesteps(steps)
    shape = (len(targets), *prior.latent_shape)
    noise = torch.randn(shape, generator=generator, dtype=poses.dtype).to(poses.device)
    if resume is None:
        z = prior.temperature * noise
        if foretold:
            abar = float(prior.alphas_cumprod[START])
            mean = torch.cat([(weights * _mean(seen, recipe)).sum(0) for seen in start])
            z = abar**0.5 * mean + (1 - abar) ** 0.5 * z
    else:
        z = resume.latents.to(poses)
        moving.restore(resume.moving)
    made = 0 if resume is None else resume.step
    for step, (t, after) in enumerate(pairs[made:], made + 1):
        abar = float(prior.alphas_cumprod[t])
        abar_after = float(prior.alphas_cumprod[after]) if after >= 0 else 1.0
        gradient = torch.zeros_like(moving.poses)
        latents = []
        for z_part, target, rest in zip(z.split([len(part) for part in parts]), parts, still, strict=True):
            said = []
            if moves:
                with torch.enable_grad():
                    told = _told(target, moving.poses).requires_grad_()
                    seen = _posed(prior, condition[:known], told)
                    noise = _predict(prior, z_part, t, seen)
                said.append(_fused(noise.detach(), seen, recipe, recipe.fusion(t)))
            if len(rest.variance):
                said.append(_fused(_predict(prior, z_part, t, rest), rest, recipe, recipe.fusion(t)))
            fused = (weights * torch.cat(said)).sum(0)
            levels = (torch.full((len(z_part),), level).to(z) for level in (abar, abar_after))
            latents.append(dps_step(z_part, fused, *levels)[0])
            if moves:
                # With the same z_t, z_{t-1} of two predictions differ by this multiple of their difference.
                scale = (1 - abar_after) ** 0.5 - (abar_after * (1 - abar) / abar) ** 0.5
                with torch.enable_grad():
                    loss = alignment(noise[0], fused, 1 - t / 1000) * scale**2
                (part,) = torch.autograd.grad(loss, told)
                gradient[:, 1:] -= part[:, :, 1:].sum(1)  # the known camera is subtracted from the wanted one
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


@dataclass(frozen=True)
class _Seen:
    """What n known views say of k wanted ones in B hypotheses: B k n rows; variances (B, k, n, 1, h, w)."""

    rows: PosedCondition
    variance: Tensor

    def hypotheses(self, which: slice) -> _Seen:
        """Some of them alone."""
        index = torch.arange(self.variance.shape[:3].numel()).view(self.variance.shape[:3])[which]
        return _Seen(self.rows[index.flatten()], self.variance[which])


def _told(targets: Tensor, poses: Tensor) -> Tensor:
    """Poses (B, k, n, 3) of k wanted views (k, 3) relative to n known ones in B hypotheses (B, n, 3)."""
    return relative_pose(targets[:, None], poses[:, None])


def _fused(said: Tensor, seen: _Seen, recipe: ReconstructionConfig, error: float) -> Tensor:
    """(B, k, c, h, w) of what n known views say, (B, k, n, c, h, w), in each hypothesis."""
    variance = seen.variance.detach()
    variance = variance if recipe.pixelwise else torch.ones_like(variance)
    return fuse(said.flatten(0, 1), variance.flatten(0, 1), error).unflatten(0, said.shape[:2])


def _mean(seen: _Seen, recipe: ReconstructionConfig) -> Tensor:
    """The wanted latents (B, k, c, h, w) as all known views foretell them in each hypothesis."""
    assert seen.rows.mean is not None
    return _fused(seen.rows.mean.unflatten(0, seen.variance.shape[:3]), seen, recipe, 0.0)


def _posed(prior: ViewPrior, condition: ViewCondition, told: Tensor) -> _Seen:
    """Of n known views in B hypotheses (B n rows) and the poses (B, k, n, 3) relative to these."""
    hypotheses, wanted, known = told.shape[:3]
    index = torch.arange(hypotheses * known).view(hypotheses, 1, known).expand(-1, wanted, -1)
    rows = prior.posed(condition[index.flatten()], told.reshape(-1, 3), known)
    return _Seen(rows, rows.variance.unflatten(0, (hypotheses, wanted, known)))


def _predict(prior: ViewPrior, z: Tensor, t: int, seen: _Seen) -> Tensor:
    """Noise (B, k, n, c, h, w) in k wanted views (k, c, h, w) as n known ones predict it in each hypothesis.

    Differentiable in the poses where those of views 2 to n move; view 1 takes no part in that.
    """
    shape = seen.variance.shape[:3]
    index = torch.arange(shape.numel()).view(shape)

    def part(views: Tensor) -> Tensor:
        rows = z[None, :, None].expand(*views.shape, *z.shape[1:]).flatten(0, 2)
        return prior.predict_noise(rows, t, seen.rows[views.flatten()]).unflatten(0, views.shape)

    if not torch.is_grad_enabled():
        return part(index)
    with torch.no_grad():
        first = part(index[:, :, :1])
    return torch.cat([first, part(index[:, :, 1:])], dim=2)
