"""The diffusion posterior sampling step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
from ._registry import Implementation, Operation


def dps_step(
    z_t: Tensor,
    eps: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    *,
    eps_uncond: Tensor | None = None,
    guidance: float = 1.0,
    eta: float = 0.0,
    noise: Tensor | None = None,
    gradient: Tensor | None = None,
    step_size: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step from t to the earlier timestep, (z_prev, z0) of (B, ...) latents: see `reference.dps_step`.

    float16, bfloat16, float32 or float64; half precision is computed in float32. Differentiable in the latents
    and the noises (z_t, eps, eps_uncond, noise, gradient), not in the numbers (abar_t, abar_prev, step_size).

    Raises:
        TypeError: an argument is not a floating-point tensor, or the dtypes of the latents differ.
        ValueError: shapes or devices do not go together, one of `gradient` and `step_size` is missing, `noise`
            is missing for eta > 0, `guidance` is given without `eps_uncond`, or a number requires a gradient.
    """
    _checks.tensor("z_t", z_t, _checks.REAL_DTYPES)
    _checks.companion("eps", eps, "z_t", z_t)
    for name, latent in (("eps_uncond", eps_uncond), ("noise", noise), ("gradient", gradient)):
        if latent is not None:
            _checks.companion(name, latent, "z_t", z_t)
    for name, value in (("abar_t", abar_t), ("abar_prev", abar_prev), ("step_size", step_size)):
        if value is not None or name != "step_size":
            number = _checks.per_sample(name, value, "z_t", z_t)
            if number.requires_grad:
                raise ValueError(f"{name} requires a gradient, which dps_step does not compute: detach it")
    if (gradient is None) != (step_size is None):
        raise ValueError("gradient and step_size go together: give both or neither")
    _checks.number("guidance", guidance)
    _checks.number("eta", eta, 0, 1)
    if eps_uncond is None and guidance != 1.0:
        raise ValueError(f"guidance is {guidance}, but without eps_uncond there is nothing to guide away from")
    if eta > 0.0 and noise is None:
        raise ValueError(f"noise must be given for eta = {eta}")
    result: tuple[Tensor, Tensor] = _operation.run(
        z_t, eps, abar_t, abar_prev, eps_uncond, guidance, eta, noise, gradient, step_size
    )
    return result


def _cpp(z_t: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    numbers = ("abar_t", "abar_prev", "step_size")
    arguments = _native.plain_arguments(_operation.named((z_t, *others)), double=numbers)
    z_prev, z0 = _fake(z_t)
    _native.call_cpp("dps_step", **arguments, z_prev=z_prev, z0=z0, batch=z_t.shape[0], numel=z_t[0].numel())
    return z_prev, z0


def _triton(z_t: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    from latentdem_kernels import dps_step as kernels

    z_prev, z0 = _fake(z_t)
    with torch.cuda.device_of(z_t):
        kernels.launch(**_native.plain_arguments(_operation.named((z_t, *others))), z_prev=z_prev, z0=z0)
    return z_prev, z0


def _fake(z_t: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    return z_prev, torch.empty_like(z_prev)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    arguments = _operation.named(inputs)
    ctx.save_for_backward(arguments["abar_t"], arguments["abar_prev"], arguments["step_size"])
    ctx.guided = arguments["eps_uncond"] is not None
    ctx.guidance, ctx.eta = arguments["guidance"], arguments["eta"]


def _backward(ctx: Any, grad_prev: Tensor, grad_z0: Tensor) -> tuple[Tensor | None, ...]:
    abar_t, abar_prev, step_size = ctx.saved_tensors
    like = reference.arithmetic(grad_prev)
    scales = reference.ddim_scales(abar_t, abar_prev, ctx.eta)
    noise_t, rsqrt_t, signal_prev, noise_prev, spread = (reference.per_sample(scale, like) for scale in scales)
    grad_z_t = (grad_z0 + signal_prev * grad_prev) * rsqrt_t
    grad_eps = noise_prev * grad_prev - noise_t * grad_z_t
    wanted = _operation.named(ctx.needs_input_grad)
    gradients: dict[str, Tensor | None] = dict.fromkeys(wanted)
    gradients |= {"z_t": grad_z_t, "eps": grad_eps}
    if ctx.guided:
        gradients |= {"eps": ctx.guidance * grad_eps, "eps_uncond": (1.0 - ctx.guidance) * grad_eps}
    if wanted["noise"]:
        gradients["noise"] = spread * grad_prev
    if wanted["gradient"]:
        gradients["gradient"] = -reference.per_sample(step_size, like) * grad_prev
    return tuple(None if value is None else value.to(grad_prev.dtype) for value in gradients.values())


_operation = Operation(
    "dps_step",
    "(Tensor z_t, Tensor eps, Tensor abar_t, Tensor abar_prev, Tensor? eps_uncond, float guidance, float eta, "
    "Tensor? noise, Tensor? gradient, Tensor? step_size) -> (Tensor, Tensor)",
    reference=reference.dps_step,
    fake=_fake,
    backends={
        "cpp": Implementation(_cpp, _native.cpp_refusal),
        "triton": Implementation(_triton, _native.triton_refusal),
    },
    save=_save,
    backward=_backward,
)
