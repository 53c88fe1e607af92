"""Volumes in the frustum of one camera, seen from another one: native on a CPU, and differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _checks, _native, reference
from ._registry import Implementation, Operation

_CAMERA_NUMBERS = 14  # of the matrix and of the distances of a sample


def frustum_resample(volume: Tensor, matrix: Tensor, distances: Tensor) -> Tensor:
    """Volumes of one camera resampled in the frustum of another: see `reference.frustum_resample`.

    volume (B, v, d, h, w), matrix (B, 3, 4), distances (B, 2), result as volume. On a CPU in float32 it is one
    native call, and one for the gradients, which are those of first order; elsewhere it is the definition.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together.
    """
    _checks.tensor("volume", volume, _checks.FFT_DTYPES, 5)
    _check_cameras("volume", volume, matrix, distances)
    return _native_or_defined(_resample, volume, matrix, distances)


def frustum_hits(opacity: Tensor, matrix: Tensor, distances: Tensor) -> Tensor:
    """Where the rays of one camera hit what is opaque in the frustum of another: see `reference.frustum_hits`.

    opacity (B, 1, d, h, w) in [0, 1], matrix (B, 3, 4), distances (B, 2), result (B, 4, h, w). See
    `frustum_resample` for what computes it.

    Raises:
        TypeError, ValueError: see `frustum_resample`; also where `opacity` has several channels.
    """
    _checks.tensor("opacity", opacity, _checks.FFT_DTYPES, 5)
    if opacity.shape[1] != 1:
        raise ValueError(f"opacity must have shape (B, 1, d, h, w), its shape is {tuple(opacity.shape)}")
    _check_cameras("opacity", opacity, matrix, distances)
    return _native_or_defined(_hits, opacity, matrix, distances)


def _check_cameras(name: str, volume: Tensor, matrix: Tensor, distances: Tensor) -> None:
    if 0 in volume.shape[1:]:
        raise ValueError(f"{name} must not be empty, its shape is {tuple(volume.shape)}")
    _checks.companion("matrix", matrix, name, volume, (volume.shape[0], 3, 4))
    _checks.companion("distances", distances, name, volume, (volume.shape[0], 2))


def _native_or_defined(operation: Operation, *arguments: Tensor) -> Tensor:
    """The definition where no backend runs: PyTorch's own gradients of it do not compute it again."""
    native = operation.choose(*arguments) == "cpp"
    result: Tensor = operation.run(*arguments) if native else operation.reference(*arguments)
    return result


def _sizes(volume: Tensor) -> dict[str, int]:
    return dict(zip(("batch", "channels", "depth", "height", "width"), volume.shape, strict=True))


def _resample_cpp(volume: Tensor, matrix: Tensor, distances: Tensor) -> Tensor:
    resampled = torch.empty_like(volume, memory_format=torch.contiguous_format)
    arrays = _native.plain_arguments({"volume": volume, "matrix": matrix, "distances": distances})
    _native.call_cpp("frustum_resample", **arrays, resampled=resampled, **_sizes(volume))
    return resampled


def _hits_cpp(opacity: Tensor, matrix: Tensor, distances: Tensor) -> Tensor:
    hit = _fake_hits(opacity)
    arrays = _native.plain_arguments({"opacity": opacity, "matrix": matrix, "distances": distances})
    _native.call_cpp("frustum_hits", **arrays, hit=hit, **_sizes(opacity))
    return hit


def _backward_cpp(function: str, name: str) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Calls the gradient of an operation whose volume is called `name`; without its gradient on request."""

    def backward(
        grad: Tensor, volume: Tensor, matrix: Tensor, distances: Tensor, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_volume = torch.empty_like(volume, memory_format=torch.contiguous_format) if whole else None
        by_cameras = volume.new_empty(len(volume), _CAMERA_NUMBERS, dtype=torch.float64)
        arrays = {name: volume, "matrix": matrix, "distances": distances, "grad": grad}
        results = {f"grad_{name}": by_volume, "grad_cameras": by_cameras}
        _native.call_cpp(f"{function}_backward", **_native.plain_arguments(arrays), **results, **_sizes(volume))
        by_matrix, by_distances = by_cameras.to(volume.dtype).split([_CAMERA_NUMBERS - 2, 2], 1)
        return volume.new_empty(0) if by_volume is None else by_volume, by_matrix.view_as(matrix), by_distances

    return backward


def _backward_defined(definition: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """The gradient of a definition, by PyTorch."""

    def backward(
        grad: Tensor, volume: Tensor, matrix: Tensor, distances: Tensor, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            inputs = [value.detach().requires_grad_() for value in (volume, matrix, distances)]
            by_volume, by_matrix, by_distances = torch.autograd.grad(definition(*inputs), inputs, grad)
        return by_volume if whole else volume.new_empty(0), by_matrix, by_distances

    return backward


def _fake_resample(volume: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(volume, memory_format=torch.contiguous_format)


def _fake_hits(opacity: Tensor, *_: Any) -> Tensor:
    return opacity.new_empty(opacity.shape[0], 4, *opacity.shape[3:])


def _fake_backward(
    grad: Tensor, volume: Tensor, matrix: Tensor, distances: Tensor, whole: bool
) -> tuple[Tensor, Tensor, Tensor]:
    by_volume = torch.empty_like(volume, memory_format=torch.contiguous_format)
    return by_volume if whole else volume.new_empty(0), torch.empty_like(matrix), torch.empty_like(distances)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _operation(
    name: str,
    schema: str,
    definition: Callable[..., Tensor],
    run: Callable[..., Tensor],
    fake: Callable[..., Tensor],
) -> Operation:
    """An operation on a volume and cameras, with its gradient as another one."""
    volume = schema.split()[1].rstrip(",")
    gradient = Operation(
        f"{name}_backward",
        "(Tensor grad, Tensor volume, Tensor matrix, Tensor distances, bool whole) -> (Tensor, Tensor, Tensor)",
        reference=_backward_defined(definition),
        fake=_fake_backward,
        backends={"cpp": Implementation(_backward_cpp(name, volume), _native.cpp_refusal)},
        recorded_as=name,
    )

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        whole = ctx.needs_input_grad[0]
        by_volume, by_matrix, by_distances = gradient.run(grad, *ctx.saved_tensors, whole)
        return by_volume if whole else None, by_matrix, by_distances

    return Operation(
        name,
        schema,
        reference=definition,
        fake=fake,
        backends={"cpp": Implementation(run, _native.cpp_refusal)},
        save=_save,
        backward=backward,
    )


_resample = _operation(
    "frustum_resample",
    "(Tensor volume, Tensor matrix, Tensor distances) -> Tensor",
    reference.frustum_resample,
    _resample_cpp,
    _fake_resample,
)
_hits = _operation(
    "frustum_hits",
    "(Tensor opacity, Tensor matrix, Tensor distances) -> Tensor",
    reference.frustum_hits,
    _hits_cpp,
    _fake_hits,
)
