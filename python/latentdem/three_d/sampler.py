"""Algorithm 2: generates views from given cameras, conditioned on all known views, while their poses move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdem_ext import dps_step

from ..solver.schedules import timesteps
from .config import ReconstructionConfig
from .fusion import fuse
from .geometry.cameras import relative_pose
from .geometry.poses import MovingPoses, PosePosterior
from .priors.base import MAX_BATCH, PosedCondition, ViewCondition, ViewPrior, concatenate

START = 60  # initial timestep if the prior predicts views without noise


@dataclass(frozen=True)
class SamplerState:
    """State of the sampler between two steps.

    Attributes:
        step: number of finished steps.
        steps: number of all steps.
        latents: (K, c, h, w) latents of the target views.
        poses: `MovingPoses.state`.
    """

    step: int
    steps: int
    latents: Tensor
    poses: dict[str, Tensor]


@torch.no_grad()
def sample(
    prior: ViewPrior,
    condition: ViewCondition,
    posterior: PosePosterior,
    targets: Tensor,
    steps: int,
    config: ReconstructionConfig,
    generator: torch.Generator,
    on_step: Callable[[SamplerState], None] = lambda state: None,
    resume: SamplerState | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents (K, c, h, w) of the target views, and the most likely poses (n, 3) of the known ones at the end.

    At every timestep each known view predicts the noise of each target view, under each of the B hypotheses of
    the poses. E-step: the predictions of the known views are fused and averaged over the hypotheses, and a DDIM
    step follows. M-step: the unknown poses of the most likely hypothesis make a gradient step on

        lambda_t |z_{t-1}(y_i) - z_{t-1}(fused)|^2 + |z_{t-1}(y_i) - z_{t-1}(y_1)|^2,

    with lambda_t rising from 0 to 1 and falling step sizes. Source: LatentDEM, Algorithm 2; the average over
    hypotheses is the expectation of the E-step over the unknown poses. If the prior predicts views without
    noise, sampling starts from these at the noise level of timestep `START` (Meng et al. 2022, *SDEdit*);
    otherwise from noise.

    Args:
        prior: view-conditioned prior.
        condition: what the prior keeps of the n known views.
        posterior: initial posterior over their cameras.
        targets: (K, 3) poses of the target views relative to the first known one.
        steps: diffusion steps from pure noise; from `START` a proportional number of them.
        config: constants of the reconstruction.
        generator: source of the initial noise; nothing else is random.
        on_step: called after every step.
        resume: state to resume from, with the same bits on a CPU.
    """
    poses, weights = posterior.poses, posterior.weights.to(posterior.cameras).view(-1, 1, 1, 1, 1)
    hypotheses, known = poses.shape[:2]
    moving = MovingPoses(poses[:1], config.radius)
    moves = config.rate > 0 and known > 1
    pairs = zip(posterior.cameras, poses, strict=True)
    condition = concatenate([prior.agree(condition.at(cameras), pose) for cameras, pose in pairs])
    parts = targets.split(max(1, MAX_BATCH // (hypotheses * known)))
    initial = [_condition_on(prior, condition, _target_poses(part, poses)) for part in parts]
    has_mean = initial[0].rows.mean is not None
    # Conditions on hypotheses that do not move are the same in all steps.
    fixed = [posed.hypotheses(slice(1, None)) for posed in initial] if moves else initial
    schedule = timesteps(steps, START) if has_mean else timesteps(steps)
    shape = (len(targets), *prior.latent_shape)
    noise = torch.randn(shape, generator=generator, dtype=poses.dtype).to(poses.device)
    if resume is None:
        z = prior.temperature * noise
        if has_mean:
            abar = float(prior.alphas_cumprod[START])
            mean = torch.cat([(weights * _fused_mean(posed, config)).sum(0) for posed in initial])
            z = abar**0.5 * mean + (1 - abar) ** 0.5 * z
    else:
        z = resume.latents.to(poses)
        moving.restore(resume.poses)
    finished = 0 if resume is None else resume.step
    for step, (t, after) in enumerate(schedule[finished:], finished + 1):
        abar = float(prior.alphas_cumprod[t])
        abar_after = float(prior.alphas_cumprod[after]) if after >= 0 else 1.0
        gradient = torch.zeros_like(moving.poses)
        latents = []
        for z_part, target, rest in zip(z.split([len(part) for part in parts]), parts, fixed, strict=True):
            predictions = []
            if moves:
                with torch.enable_grad():
                    relative = _target_poses(target, moving.poses).requires_grad_()
                    posed = _condition_on(prior, condition[:known], relative)
                    noise = _predict(prior, z_part, t, posed)
                predictions.append(_fused(noise.detach(), posed, config, config.fusion(t)))
            if len(rest.variance):
                predictions.append(_fused(_predict(prior, z_part, t, rest), rest, config, config.fusion(t)))
            fused = (weights * torch.cat(predictions)).sum(0)
            levels = (torch.full((len(z_part),), level).to(z) for level in (abar, abar_after))
            latents.append(dps_step(z_part, fused, *levels)[0])
            if moves:
                # With the same z_t, z_{t-1} of two predictions differ by this multiple of their difference.
                scale = (1 - abar_after) ** 0.5 - (abar_after * (1 - abar) / abar) ** 0.5
                with torch.enable_grad():
                    loss = alignment(noise[0], fused, 1 - t / 1000) * scale**2
                (part,) = torch.autograd.grad(loss, relative)
                gradient[:, 1:] -= part[:, :, 1:].sum(1)  # the known camera is subtracted from the target
        z = torch.cat(latents)
        if moves:
            moving.move(gradient, config.rate * t / 1000)
        on_step(SamplerState(step, len(schedule), z, moving.state))
    return z, moving.poses[0]


def alignment(noise: Tensor, fused: Tensor, ratio: float) -> Tensor:
    """Squared distance of predictions from the fused one, times `ratio`, and from those of view 1; a scalar.

    Args:
        noise: (K, n, c, h, w) predictions of each known view; only those of views 2 to n are differentiated.
        fused: (K, c, h, w) fused predictions.
        ratio: lambda_t.
    """
    others = noise[:, 1:]
    to_fused = (others - fused.detach()[:, None]).square().sum()
    return ratio * to_fused + (others - noise[:, :1].detach()).square().sum()


@dataclass(frozen=True)
class _PosedViews:
    """Conditions for k target views, given n known ones in B hypotheses of their poses.

    Attributes:
        rows: B k n rows.
        variance: (B, k, n, 1, h, w) variances of the rows.
    """

    rows: PosedCondition
    variance: Tensor

    def hypotheses(self, selected: slice) -> _PosedViews:
        """The same for some of the hypotheses."""
        index = torch.arange(self.variance.shape[:3].numel()).view(self.variance.shape[:3])[selected]
        return _PosedViews(self.rows[index.flatten()], self.variance[selected])


def _target_poses(targets: Tensor, poses: Tensor) -> Tensor:
    """Poses (B, k, n, 3) of k target views (k, 3) relative to n known ones in B hypotheses (B, n, 3)."""
    return relative_pose(targets[:, None], poses[:, None])


def _fused(predictions: Tensor, posed: _PosedViews, config: ReconstructionConfig, error: float) -> Tensor:
    """Predictions (B, k, n, c, h, w) of n known views fused in each hypothesis, (B, k, c, h, w)."""
    variance = posed.variance.detach()
    variance = variance if config.pixelwise else torch.ones_like(variance)
    return fuse(predictions.flatten(0, 1), variance.flatten(0, 1), error).unflatten(0, predictions.shape[:2])


def _fused_mean(posed: _PosedViews, config: ReconstructionConfig) -> Tensor:
    """Target latents (B, k, c, h, w) predicted without noise by all known views in each hypothesis."""
    assert posed.rows.mean is not None
    return _fused(posed.rows.mean.unflatten(0, posed.variance.shape[:3]), posed, config, 0.0)


def _condition_on(prior: ViewPrior, condition: ViewCondition, relative: Tensor) -> _PosedViews:
    """Conditions on n known views in B hypotheses (B n rows), given target poses (B, k, n, 3)."""
    hypotheses, targets, known = relative.shape[:3]
    index = torch.arange(hypotheses * known).view(hypotheses, 1, known).expand(-1, targets, -1)
    rows = prior.posed(condition[index.flatten()], relative.reshape(-1, 3), known)
    return _PosedViews(rows, rows.variance.unflatten(0, (hypotheses, targets, known)))


def _predict(prior: ViewPrior, z: Tensor, t: int, posed: _PosedViews) -> Tensor:
    """Noise (B, k, n, c, h, w) in k target views (k, c, h, w) predicted by n known ones in each hypothesis.

    Differentiable with respect to the poses of views 2 to n; view 1 is predicted without gradients.
    """
    shape = posed.variance.shape[:3]
    index = torch.arange(shape.numel()).view(shape)

    def part(views: Tensor) -> Tensor:
        rows = z[None, :, None].expand(*views.shape, *z.shape[1:]).flatten(0, 2)
        return prior.predict_noise(rows, t, posed.rows[views.flatten()]).unflatten(0, views.shape)

    if not torch.is_grad_enabled():
        return part(index)
    with torch.no_grad():
        first = part(index[:, :, :1])
    return torch.cat([first, part(index[:, :, 1:])], dim=2)
