"""diffusers: the autoencoder of any pipeline, and the steps of `DDIMScheduler` and `DDPMScheduler`.

    from latentdem_ext.integrations import diffusers

    diffusers.apply(pipe)    # its autoencoder and its scheduler; diffusers.remove() puts everything back

Without an argument the two schedulers are replaced for everybody; a scheduler can be given, too. The
autoencoder becomes that of `latentdem_ext.accelerate_vae`, a step `latentdem_ext.dps_step`: with the same noise
from the same generator, the same return types, and half precision computed in float32 and rounded once. A
scheduler that predicts something else than the noise, clips, thresholds or learns its variance steps as before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial, wraps
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _checks
from .._dps_step import dps_step
from ..vae import accelerate_vae
from ._integration import (
    Change,
    Integration,
    IntegrationError,
    Replacement,
    expect_equal,
    expect_parameters,
    probe,
)

_ROUNDING = 2e-6  # of a step's coefficients
_LATENTS = ("model_output", "timestep", "sample")


class _Autoencoder(NamedTuple):
    vae: nn.Module

    def install(self) -> Callable[[], None]:
        return accelerate_vae(self.vae).remove


def _changes(target: Any) -> Iterator[Change]:
    library = importlib.import_module("diffusers")
    steps = {
        kind: build(kind.step)
        for kind, build in ((library.DDIMScheduler, _ddim), (library.DDPMScheduler, _ddpm))
    }
    _check(library, steps)
    if target is library:
        yield from (Replacement(kind, "step", step) for kind, step in steps.items())
        return
    scheduler = getattr(target, "scheduler", target)
    for kind, step in steps.items():
        if isinstance(scheduler, kind) and type(scheduler).step is kind.step:
            yield Replacement(scheduler, "step", MethodType(step, scheduler))
    vae = getattr(target, "vae", None)
    if isinstance(vae, nn.Module):
        try:
            accelerate_vae(vae).remove()
        except ValueError as error:
            raise IntegrationError(f"the autoencoder of the pipeline cannot be accelerated: {error}") from error
        yield _Autoencoder(vae)


_integration = Integration("diffusers", ("diffusers",), _changes)
apply, remove, accelerate = _integration.apply, _integration.remove, _integration.accelerate


def _ddim(original: Callable[..., Any]) -> Callable[..., Any]:
    more = ("eta", "use_clipped_model_output", "generator", "variance_noise", "return_dict")
    expect_parameters(original, "self", *_LATENTS, *more)
    home = importlib.import_module(original.__module__)

    @wraps(original)
    def step(
        self: Any,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: Any = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        if (
            not _is_plain(self, model_output, sample)
            or not isinstance(eta, (int, float))
            or not 0 <= eta <= 1
            or use_clipped_model_output
            or self.num_inference_steps is None
            or (variance_noise is not None and (generator is not None or not _alike(variance_noise, sample)))
        ):
            rest = (eta, use_clipped_model_output, generator, variance_noise, return_dict)
            return original(self, model_output, timestep, sample, *rest)
        earlier = timestep - self.config.num_train_timesteps // self.num_inference_steps
        level = self.alphas_cumprod[earlier] if earlier >= 0 else self.final_alpha_cumprod
        noise = None
        if eta > 0:
            noise = _noise(home, model_output, generator) if variance_noise is None else variance_noise
        results = _step(sample, model_output, self.alphas_cumprod[timestep], level, float(eta), noise)
        return home.DDIMSchedulerOutput(*results) if return_dict else results

    return step


def _ddpm(original: Callable[..., Any]) -> Callable[..., Any]:
    expect_parameters(original, "self", *_LATENTS, "generator", "return_dict")
    home = importlib.import_module(original.__module__)

    @wraps(original)
    def step(
        self: Any,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        small = self.variance_type in ("fixed_small", "fixed_small_log")
        if not _is_plain(self, model_output, sample) or not small:
            return original(self, model_output, timestep, sample, generator, return_dict)
        earlier = self.previous_timestep(timestep)
        now, level = self.alphas_cumprod[timestep], self.alphas_cumprod[earlier] if earlier >= 0 else self.one
        # diffusers rounds this ratio to float32 and subtracts it from 1. With many steps and little noise left
        # that decides the last digits of its result, which are to stay the same.
        if abs(float(now / level) - float(now) / float(level)) > _ROUNDING * (1 - float(now)):
            return original(self, model_output, timestep, sample, generator, return_dict)
        noise = _noise(home, model_output, generator) if timestep > 0 else None
        eta = 0.0 if noise is None else 1.0  # the ancestral step is the DDIM one with eta = 1
        results = _step(sample, model_output, now, level, eta, noise)
        return home.DDPMSchedulerOutput(*results) if return_dict else results

    return step


def _is_plain(scheduler: Any, model_output: Tensor, sample: Tensor) -> bool:
    """Whether the scheduler predicts the noise and leaves the clean sample as it is."""
    config = scheduler.config
    return (
        config.prediction_type == "epsilon"
        and not config.thresholding
        and not config.clip_sample
        and sample.dim() > 0
        and sample.dtype in _checks.REAL_DTYPES
        and _alike(model_output, sample)
    )


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)


def _noise(home: Any, like: Tensor, generator: Any) -> Tensor:
    return home.randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _step(
    sample: Tensor, eps: Tensor, now: Tensor, earlier: Tensor, eta: float, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    levels = (
        torch.full(sample.shape[:1], float(level), dtype=torch.float64, device=sample.device)
        for level in (now, earlier)
    )
    return dps_step(sample, eps, *levels, eta=eta, noise=noise)


def _check(library: Any, steps: dict[Any, Callable[..., Any]]) -> None:
    """Both schedulers in the middle and at the end, with and without noise."""
    for kind, step in steps.items():
        scheduler = kind(clip_sample=False)
        scheduler.set_timesteps(10)
        for t in scheduler.timesteps[[4, -1]]:
            for options in ({"eta": 0.0}, {"eta": 0.5}) if kind is library.DDIMScheduler else ({},):
                functions = (
                    wraps(kind.step)(partial(_as_tuple, function, scheduler, t, options))
                    for function in (kind.step, step)
                )
                expect_equal(*functions, probe(2, 4, 5, 3), probe(2, 4, 3, 5).transpose(-1, -2).contiguous())


def _as_tuple(
    step: Callable[..., Any], scheduler: Any, t: Tensor, options: dict[str, Any], eps: Tensor, z_t: Tensor
) -> Any:
    return step(scheduler, eps, t, z_t, return_dict=False, **options)
