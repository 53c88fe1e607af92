"""The diffusion posterior sampling step: checks, choice of the implementation, registration with PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _backends, _checks, _cpp_ops, _triton_ops, reference
from ._eager import needs_dispatcher


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
    arguments = (z_t, eps, abar_t, abar_prev, eps_uncond, guidance, eta, noise, gradient, step_size)
    return _operation(*arguments) if needs_dispatcher(*arguments) else _compute(*arguments)


def _compute(
    z_t: Tensor,
    eps: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    eps_uncond: Tensor | None,
    guidance: float,
    eta: float,
    noise: Tensor | None,
    gradient: Tensor | None,
    step_size: Tensor | None,
) -> tuple[Tensor, Tensor]:
    arguments = (z_t, eps, abar_t, abar_prev, eps_uncond, guidance, eta, noise, gradient, step_size)
    refusals = {"cpp": _cpp_ops.tensor_refusal("z_t", z_t), "triton": _triton_ops.refusal("z_t", z_t)}
    backend = _backends.choose("dps_step", refusals)
    if backend == "cpp":
        return _cpp(*arguments)
    if backend == "triton":
        return _triton_ops.dps_step(*arguments)
    return reference.dps_step(*arguments)


_operation = torch.library.custom_op(
    "latentdem::dps_step",
    _compute,
    mutates_args=(),
    schema="(Tensor z_t, Tensor eps, Tensor abar_t, Tensor abar_prev, Tensor? eps_uncond, float guidance, "
    "float eta, Tensor? noise, Tensor? gradient, Tensor? step_size) -> (Tensor, Tensor)",
)


def _cpp(
    z_t: Tensor,
    eps: Tensor,
    abar_t: Tensor,
    abar_prev: Tensor,
    eps_uncond: Tensor | None,
    guidance: float,
    eta: float,
    noise: Tensor | None,
    gradient: Tensor | None,
    step_size: Tensor | None,
) -> tuple[Tensor, Tensor]:
    latents = {"z_t": z_t, "eps": eps, "eps_uncond": eps_uncond, "noise": noise, "gradient": gradient}
    numbers = {"abar_t": abar_t, "abar_prev": abar_prev, "step_size": step_size}
    # The dictionary keeps the converted tensors alive until the call returns.
    held = {name: None if tensor is None else _cpp_ops.plain(tensor) for name, tensor in latents.items()}
    for name, tensor in numbers.items():
        held[name] = None if tensor is None else _cpp_ops.plain(tensor.double())
    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    z0 = torch.empty_like(z_prev)
    _cpp_ops.module().dps_step(
        **{name: 0 if tensor is None else tensor.data_ptr() for name, tensor in held.items()},
        z_prev=z_prev.data_ptr(),
        z0=z0.data_ptr(),
        batch=z_t.shape[0],
        numel=z_t[:1].numel(),
        guidance=guidance,
        eta=eta,
        threads=torch.get_num_threads(),
    )
    return z_prev, z0


@_operation.register_fake
def _(z_t: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    z_prev = torch.empty_like(z_t, memory_format=torch.contiguous_format)
    return z_prev, torch.empty_like(z_prev)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, _, abar_t, abar_prev, eps_uncond, guidance, eta, _, _, step_size = inputs
    ctx.save_for_backward(abar_t, abar_prev, step_size)
    ctx.guided, ctx.guidance, ctx.eta = eps_uncond is not None, guidance, eta


def _backward(ctx: Any, grad_prev: Tensor, grad_z0: Tensor) -> tuple[Tensor | None, ...]:
    abar_t, abar_prev, step_size = ctx.saved_tensors
    like = reference.arithmetic(grad_prev)
    scales = reference.ddim_scales(abar_t, abar_prev, ctx.eta)
    noise_t, rsqrt_t, signal_prev, noise_prev, spread = (reference.per_sample(scale, like) for scale in scales)
    grad_z_t = (grad_z0 + signal_prev * grad_prev) * rsqrt_t
    grad_eps = noise_prev * grad_prev - noise_t * grad_z_t
    results: list[Tensor | None] = [None] * 10
    results[0], results[1] = grad_z_t, grad_eps
    if ctx.guided:
        results[1], results[4] = ctx.guidance * grad_eps, (1.0 - ctx.guidance) * grad_eps
    if ctx.needs_input_grad[7]:
        results[7] = spread * grad_prev
    if ctx.needs_input_grad[8]:
        results[8] = -reference.per_sample(step_size, like) * grad_prev
    return tuple(None if result is None else result.to(grad_prev.dtype) for result in results)


_operation.register_autograd(_backward, setup_context=_save)
