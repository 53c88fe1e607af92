"""PSLD (LituRout/PSLD): the DDIM step with gluing.

    from latentdem_ext.integrations import psld

    psld.apply()    # psld.remove() puts everything back

`DDIMSampler.p_sample_ddim` of `ldm.models.diffusion.psld` measures the decoded image once instead of twice,
for the fidelity and for the gluing term, forward and gradient; clean prediction, guidance, move and gradient
step are `latentdem_ext.dps_step`. The same random numbers are drawn. The blur itself is in the measurement
operators, which are those of DPS: `latentdem_ext.integrations.dps`.

Steps without a measurement, with a quantised prediction, dropout of the noise or a score corrector are the
original ones. The LatentDEM release, whose sampler also moves the kernel, is refused: see
`latentdem_ext.integrations.fastem`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .._dps_step import dps_step
from ._integration import Integration, Replacement, expect_equal, expect_parameters, probe

_PARAMETERS = (
    "self",
    "x",
    "c",
    "t",
    "index",
    "repeat_noise",
    "use_original_steps",
    "quantize_denoised",
    "temperature",
    "noise_dropout",
    "score_corrector",
    "corrector_kwargs",
    "unconditional_guidance_scale",
    "unconditional_conditioning",
    "ip_mask",
    "measurements",
    "operator",
    "gamma",
    "inpainting",
    "gamma_scale",
    "omega",
    "general_inverse",
    "noiser",
    "ffhq256",
)


def _replacements(module: Any) -> Iterator[Replacement]:
    sampler = getattr(module, "DDIMSampler", None)
    if sampler is not None:
        original = sampler.p_sample_ddim
        # The LatentDEM release has further parameters, and returns a kernel.
        expect_parameters(original, *_PARAMETERS, exactly=True)
        replacement = wraps(original)(_p_sample_ddim(original, module.noise_like))
        _check(sampler, original, replacement)
        yield Replacement(sampler, "p_sample_ddim", replacement)


_integration = Integration("PSLD", ("ldm.models.diffusion.psld",), _replacements)
apply, remove, accelerate = _integration.apply, _integration.remove, _integration.accelerate


def _p_sample_ddim(
    original: Callable[..., Any], noise_like: Callable[..., Tensor]
) -> Callable[..., tuple[Tensor, Tensor]]:
    signature = inspect.signature(original)

    def p_sample_ddim(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        a = SimpleNamespace(**bound.arguments)
        if (
            not (a.inpainting or a.general_inverse)
            or a.use_original_steps
            or a.quantize_denoised
            or a.noise_dropout > 0
            or a.score_corrector is not None
            or _eta(a.self, a.index) > 1
        ):
            return original(*args, **kwargs)
        sampler, model, z_t = a.self, a.self.model, a.x.detach().clone().requires_grad_()
        moves = {
            "abar_t": _level(sampler.ddim_alphas, a.index, z_t),
            "abar_prev": _level(sampler.ddim_alphas_prev, a.index, z_t),
            "eta": _eta(sampler, a.index),
            "noise": noise_like(z_t.shape, z_t.device, a.repeat_noise) * a.temperature,
        }
        eps, guidance = _predicted(model, z_t, a)
        _, z0 = dps_step(z_t, eps, **moves, **guidance)

        image = model.differentiable_decode_first_stage(z0)
        measured = a.operator.forward(image, mask=a.ip_mask) if a.inpainting else a.operator.forward(image)
        fidelity = torch.linalg.norm(a.noiser(measured) - a.measurements)
        glued = a.operator.transpose(a.measurements) + image - a.operator.transpose(measured)
        encoded = model.get_first_stage_encoding(model.encode_first_stage(glued))
        loss = torch.linalg.norm(encoded - z0) * a.gamma + fidelity * a.omega
        (gradient,) = torch.autograd.grad(loss, z_t)
        print("Loss: ", loss.item())  # as the original does

        with torch.no_grad():
            step = {"gradient": gradient, "step_size": torch.ones_like(moves["abar_t"])}
            z_prev, z0 = dps_step(z_t, eps, **moves, **guidance, **step)
        return z_prev.detach(), z0.detach()

    return p_sample_ddim


def _predicted(model: Any, z_t: Tensor, a: Any) -> tuple[Tensor, dict[str, Any]]:
    """The predicted noise, and the further arguments of classifier-free guidance."""
    if a.unconditional_conditioning is None or a.unconditional_guidance_scale == 1.0:
        return model.apply_model(z_t, a.t, a.c).to(z_t.dtype), {}
    both = torch.cat([a.unconditional_conditioning, a.c])
    predictions = model.apply_model(torch.cat([z_t] * 2), torch.cat([a.t] * 2), both).to(z_t.dtype)
    uncond, eps = predictions.chunk(2)
    return eps, {"eps_uncond": uncond, "guidance": float(a.unconditional_guidance_scale)}


def _level(levels: Any, index: int, like: Tensor) -> Tensor:
    return torch.full(like.shape[:1], float(levels[index]), dtype=torch.float64, device=like.device)


def _eta(sampler: Any, index: int) -> float:
    """The eta of a step, given the standard deviation that the sampler has computed from it."""
    now, before = float(sampler.ddim_alphas[index]), float(sampler.ddim_alphas_prev[index])
    most = ((1 - before) / (1 - now) * (1 - now / before)) ** 0.5
    return float(sampler.ddim_sigmas[index]) / most if most > 0 else 0.0


def _check(kind: Any, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    """Both ways to measure, with guidance and without, on a sampler with a model that is no network."""
    sampler = object.__new__(kind)
    now, before = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0.95, 0.9, 0.6])
    sampler.ddim_alphas, sampler.ddim_alphas_prev = now, before.double().numpy()
    sampler.ddim_sigmas = 0.5 * ((1 - before) / (1 - now) * (1 - now / before)).sqrt()
    sampler.ddim_sqrt_one_minus_alphas = (1 - now).sqrt()
    sampler.model = SimpleNamespace(
        apply_model=lambda z, t, c: torch.tanh(z + c) + 0.1 * z.flip(-1),
        differentiable_decode_first_stage=lambda z: z.repeat_interleave(2, -1) ** 3,
        encode_first_stage=lambda x: x.unflatten(-1, (-1, 2)).mean(-1),
        get_first_stage_encoding=lambda z: 0.5 * z,
    )
    operator = SimpleNamespace(
        forward=lambda x, mask=1.0: 0.5 * mask * (x + x.roll(1, -1)),
        transpose=lambda x: 0.5 * (x + x.roll(-1, -1)),
    )
    for how in ({"general_inverse": True}, {"inpainting": True, "ip_mask": 0.3}):
        for guidance in (
            {},
            {"unconditional_guidance_scale": 3.0, "unconditional_conditioning": probe(2, 1, 1, 1)},
        ):

            def call(function: Callable[..., Any], x: Tensor, y: Tensor, options: dict[str, Any]) -> Any:
                with torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
                    t = torch.full((2,), 1)
                    return function(
                        sampler,
                        x,
                        x.new_full((2, 1, 1, 1), 0.2),
                        t,
                        1,
                        measurements=y,
                        operator=operator,
                        **options,
                    )

            options = {**how, **guidance, "noiser": lambda x: x + 0.1 * torch.randn_like(x), "gamma": 0.3}
            functions = (wraps(original)(lambda *a, f=f: call(f, *a)) for f in (original, replacement))
            expect_equal(*functions, probe(2, 3, 4, 4), probe(2, 3, 4, 8), options, gradient=False)
