"""The M-step with the kernel denoiser: all updates, convolutions and projections at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _backends, _checks, _native, reference
from ._hqs import MAX_ITERATIONS, fits_in_shared_memory, hqs_kernel_update
from ._project_kernel import project_kernel
from ._registry import Implementation, Operation
from ._weight_cache import WeightCache
from ._winograd import convolution
from .reference import HQSFactors

# Inputs and outputs of the layers that the CUDA kernels take: those of the shipped denoiser.
_LAYERS = ((2, 32), (32, 32), (32, 32), (32, 32), (32, 1))


def hqs_m_step(
    kernel: Tensor,
    factors: HQSFactors,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    level: Tensor,
    *,
    relative: bool = True,
    iterations: int = 20,
) -> Tensor:
    """Updates of a kernel (B, 1, K, K) with the kernel denoiser in between: see `reference.hqs_m_step`.

    Weights (outputs, inputs, 3, 3) and biases (outputs,) are those of the denoiser's layers, level (B,) is its
    noise. What is computed from the weights is kept until they change; changes made through `weight.data` are
    not seen. Not differentiable.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor, `factors` not what `hqs_prepare` returns, the
            layers are not sequences of tensors of their dtype, `relative` is not a flag or `iterations` not an
            integer.
        ValueError: shapes or devices do not go together, `iterations` is not between 1 and 1000, or an argument
            requires a gradient.
    """
    data_term, gains = _checks.factors("hqs_m_step", kernel, factors)
    weights, biases = _checked_layers(kernel, weights, biases)
    _checks.per_sample("level", level, "kernel", kernel)
    _checks.flag("relative", relative)
    _checks.integer("iterations", iterations, 1, MAX_ITERATIONS)
    _checks.no_gradient("hqs_m_step", level=level)
    result: Tensor = _operation.run(kernel, data_term, gains, weights, biases, level, relative, iterations)
    return result


def hqs_m_step_is_one_launch(
    kernel: Tensor, factors: HQSFactors, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> bool:
    """Whether `hqs_m_step` of these arguments is one launch on the GPU that they are on.

    Until a device has measured it against separate operations, only where the backend "cuda" is requested.
    """
    layers = [*weights, *biases]
    return (
        not _operation.backends["cuda"].refusal("kernel", kernel, *factors, weights)
        and all(layer.dtype == kernel.dtype and layer.device == kernel.device for layer in layers)
        and not any(tensor.requires_grad for tensor in (kernel, *factors, *layers))
    )


def _checked_layers(
    kernel: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """The layers of a denoiser of kernels: from two inputs to one output, of the kernel's dtype and device."""
    weights, biases = _as_list("weights", weights), _as_list("biases", biases)
    if not weights or len(weights) != len(biases):
        counts = f"{len(weights)} and {len(biases)}"
        raise ValueError(f"weights and biases must be of as many layers, at least one: they are {counts}")
    inputs = 2
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        name = f"weights[{layer}]"
        _checks.tensor(name, weight, (kernel.dtype,), 4)
        outputs = 1 if layer == len(weights) - 1 else weight.shape[0]
        _checks.companion(name, weight, "kernel", kernel, (outputs, inputs, 3, 3))
        _checks.companion(f"biases[{layer}]", bias, name, weight, (outputs,))
        _checks.no_gradient("hqs_m_step", **{name: weight, f"biases[{layer}]": bias})
        inputs = outputs
    return weights, biases


def _as_list(name: str, layers: object) -> list[Tensor]:
    if not isinstance(layers, (list, tuple)):
        raise TypeError(f"{name} must be a list of tensors, not {type(layers).__name__}")
    return list(layers)


def _reference(
    kernel: Tensor,
    data_term: Tensor,
    filter: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    level: Tensor,
    relative: bool,
    iterations: int,
) -> Tensor:
    factors = HQSFactors(data_term, filter)
    return reference.hqs_m_step(kernel, factors, weights, biases, level, relative, iterations)


def _separate(
    kernel: Tensor,
    data_term: Tensor,
    filter: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    level: Tensor,
    relative: bool,
    iterations: int,
) -> Tensor:
    """The operations one after another, each on its fastest backend, as with any other denoiser."""
    factors = HQSFactors(data_term, filter)
    for _ in range(iterations):
        kernel = hqs_kernel_update(kernel, factors)
        kernel = reference.denoise_kernel(kernel, weights, biases, level, relative, convolution)
        kernel = project_kernel(kernel)
    return kernel


def _inputs_first(weight: Tensor, _: None) -> Tensor:
    """(outputs, inputs, 3, 3) as the CUDA kernel reads it: (3, 3, inputs, outputs) in memory of its own."""
    return weight.permute(2, 3, 1, 0).clone(memory_format=torch.contiguous_format)


_laid_out = WeightCache(_inputs_first)


def _cuda(
    kernel: Tensor,
    data_term: Tensor,
    filter: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    level: Tensor,
    relative: bool,
    iterations: int,
) -> Tensor:
    updated = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    sizes = {"batch": kernel.shape[0], "size": kernel.shape[-1]}
    arrays = {"kernel": kernel, "data_term": data_term, "filter": filter, "level": level.to(kernel.dtype)}
    _native.call_cuda(
        "hqs_m_step",
        **_native.plain_arguments(arrays),
        weights=[_laid_out(weight, None) for weight in weights],
        biases=[_native.plain(bias) for bias in biases],
        updated=updated,
        workspace=_native.workspace("hqs_m_step", kernel, **sizes),
        side=filter.shape[-2],
        relative=relative,
        iterations=iterations,
        **sizes,
    )
    return updated


def _cuda_refusal(
    name: str, kernel: Tensor, data_term: Tensor, filter: Tensor, weights: Sequence[Tensor], *_: Any
) -> str:
    """Why the CUDA kernel does not take the arguments, "" if it does.

    It has not been measured on a device, so that it runs on request only.
    """
    refusal, size, side = _native.cuda_refusal(name, kernel), kernel.shape[-1], filter.shape[-2]
    if refusal:
        return refusal
    if not fits_in_shared_memory(size, side):
        return f"K = {size} on a grid of {side} points a side does not fit in the shared memory of a block"
    if tuple((weight.shape[1], weight.shape[0]) for weight in weights) != _LAYERS:
        return "weights are not those of five layers with 32 channels in between"
    if _backends.requested_backend() != "cuda":
        return "it was not measured against separate operations, and runs where it is requested"
    return ""


def _fake(kernel: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(kernel, memory_format=torch.contiguous_format)


_operation = Operation(
    "hqs_m_step",
    "(Tensor kernel, Tensor data_term, Tensor filter, Tensor[] weights, Tensor[] biases, Tensor level, "
    "bool relative, SymInt iterations) -> Tensor",
    reference=_reference,
    fake=_fake,
    backends={"cuda": Implementation(_cuda, _cuda_refusal)},
    fallback=_separate,
)
