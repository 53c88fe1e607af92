"""Whatever an operation is called with, it returns tensors or raises an error that names an argument."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import latentdem_ext as ext

CALLS = 2000


def rand(*shape: int) -> Tensor:
    return torch.rand(shape)


def image(batch: int) -> Tensor:
    return rand(batch, 2, 6, 5)


def kernel(batch: int) -> Tensor:
    return rand(batch, 1, 3, 3)


def latent(batch: int) -> Tensor:
    return rand(batch, 2, 3, 4)


def number(batch: int) -> Tensor:
    return 0.05 + 0.9 * rand(batch)


def factors(batch: int) -> ext.HQSFactors:
    return ext.HQSFactors(kernel(batch), rand(batch, 1, 6, 4))


# Valid arguments of every operation of the package, for a batch of any size.
OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[[int], dict[str, Any]]]] = {
    "blur": (ext.blur, lambda b: {"x": image(b), "kernel": kernel(b)}),
    "blur_adjoint": (ext.blur_adjoint, lambda b: {"y": image(b), "kernel": kernel(b)}),
    "kernel_to_otf": (ext.kernel_to_otf, lambda b: {"kernel": kernel(b), "shape": (6, 5)}),
    "blur_fidelity": (
        ext.blur_fidelity,
        lambda b: {
            "x": image(b),
            "kernel": kernel(b),
            "y": image(b),
            "y_hat": torch.fft.rfft2(image(b + 1))[1:],
        },
    ),
    "blur_proximal": (
        ext.blur_proximal,
        lambda b: {"x0": image(b), "kernel": kernel(b), "y": image(b), "rho": number(b), "y_hat": None},
    ),
    "hqs_prepare": (
        ext.hqs_prepare,
        lambda b: {
            "x": rand(b, 2, 2, 6, 5),
            "y": image(b),
            "weight": number(b),
            "kernel_size": 3,
            "per_channel": False,
            "y_hat": None,
        },
    ),
    "hqs_kernel_update": (
        ext.hqs_kernel_update,
        lambda b: {"kernel": kernel(b), "factors": factors(b), "project": True, "iterations": 2},
    ),
    "project_kernel": (ext.project_kernel, lambda b: {"kernel": kernel(b)}),
    "dps_step": (
        ext.dps_step,
        lambda b: {
            "z_t": latent(b),
            "eps": latent(b),
            "abar_t": number(b),
            "abar_prev": 0.95 + 0.04 * rand(b),
            "eps_uncond": latent(b),
            "guidance": 2.0,
            "eta": 0.5,
            "noise": latent(b),
            "gradient": latent(b),
            "step_size": number(b),
        },
    ),
    "renoise": (
        ext.renoise,
        lambda b: {
            "z_t": latent(b),
            "z0": latent(b),
            "abar_t": number(b),
            "abar_prev": number(b),
            "noise": latent(b),
            "fresh": 0.5,
        },
    ),
    "group_norm_silu": (
        ext.group_norm_silu,
        lambda b: {"x": rand(b, 4, 3, 2), "groups": 2, "weight": rand(4), "bias": rand(4), "eps": 1e-6},
    ),
    "upsample_conv": (
        ext.upsample_conv,
        lambda b: {"x": rand(b, 2, 3, 4), "weight": rand(3, 2, 3, 3), "bias": rand(3)},
    ),
}


def freed(value: Tensor) -> Tensor:
    value = value.clone()
    value.untyped_storage().resize_(0)
    return value


def resized(value: Tensor, draw: random.Random) -> Tensor:
    shape = list(value.shape)
    if shape:
        shape[draw.randrange(len(shape))] = draw.choice([0, 1, 2, 4, 7])
    return torch.rand(shape)


TENSORS: list[Callable[[Tensor, random.Random], Any]] = [
    lambda value, draw: None,
    lambda value, draw: value.tolist(),
    lambda value, draw: value.detach().resolve_conj().numpy(),
    lambda value, draw: draw.choice([0, 1.5, "x", True, (), object()]),
    lambda value, draw: (
        value.to(draw.choice([torch.int64, torch.bool, torch.uint8])) if value.isreal().all() else 1
    ),
    lambda value, draw: value.real.to(draw.choice([torch.float16, torch.bfloat16, torch.float64])),
    lambda value, draw: value.to(torch.complex64),
    lambda value, draw: value.unsqueeze(draw.randrange(value.dim() + 1)),
    lambda value, draw: value[0] if len(value) else value.sum(),
    lambda value, draw: torch.tensor(0.5),
    resized,
    lambda value, draw: value[:0],
    lambda value, draw: value.to("meta"),
    lambda value, draw: value.real.to_sparse(),
    lambda value, draw: freed(value),
    lambda value, draw: value.mT.contiguous().mT if value.dim() > 1 else value.repeat_interleave(2)[::2],
    lambda value, draw: value[:1].expand_as(value) if len(value) else value,
    lambda value, draw: torch.stack([value, value], dim=-1)[..., 0],
    lambda value, draw: value.real.clone().requires_grad_(),
    lambda value, draw: value * draw.choice([0.0, -1.0, 1e30, math.nan, math.inf]),
    lambda value, draw: torch.complex(torch.zeros_like(value.real), -value.real).conj().imag,
]
SCALARS = [
    None,
    0,
    1,
    2,
    3,
    -1,
    10**9,
    0.5,
    -0.5,
    math.nan,
    math.inf,
    True,
    "x",
    (),
    (6, 5),
    (0, 5),
    (6, 2.5),
    [1],
]
SCALARS += [torch.tensor(0.5), torch.ones(2), np.float32(0.5)]


def changed(value: Any, draw: random.Random) -> Any:
    if isinstance(value, ext.HQSFactors):
        if draw.random() < 0.2:
            return draw.choice([None, tuple(value), 1, kernel(2)])
        return ext.HQSFactors(*(changed(part, draw) if draw.random() < 0.5 else part for part in value))
    if isinstance(value, Tensor):
        return draw.choice(TENSORS)(value, draw)
    return draw.choice(SCALARS)


def call(operation: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, Exception | None]:
    try:
        return operation(**arguments), None
    except (TypeError, ValueError, RuntimeError) as error:
        return None, error


def tame(arguments: dict[str, Any]) -> bool:
    """No number is so large, and no weight so small, that rounding errors decide."""
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    tensors += arguments.get("factors", ())
    values = [value.detach().abs() if value.dim() > 1 else value.detach() for value in tensors]
    return all(bool((v <= 1e3).all()) and (v.dim() > 1 or bool((v > 1e-3).all())) for v in values)


def check_result(result: Any, operation: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """`result` is that of the reference: shapes and dtypes always, values where they say something."""
    with ext.use_backend("reference"):
        expected = operation(**arguments)
    results, definitions = ([r] if isinstance(r, Tensor) else list(r) for r in (result, expected))
    assert len(results) == len(definitions) > 0
    for found, definition in zip(results, definitions, strict=True):
        assert found.shape == definition.shape
        assert found.dtype == definition.dtype
        assert found.device == definition.device
        if found.numel() and not found.is_meta and tame(arguments):
            found, definition = found.detach(), definition.detach()
            tolerance = max(1e-4, 4 * torch.finfo(found.dtype).eps) * max(
                1.0, float(definition.nan_to_num(0, 0, 0).abs().max())
            )
            torch.testing.assert_close(found, definition, rtol=0, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_arguments_of_every_kind_are_taken_or_refused_by_name(name):
    operation, valid = OPERATIONS[name]
    draw = random.Random(name)
    names = re.compile(rf"\b({'|'.join(valid(1))})\b")
    taken = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny
    try:
        for _ in range(CALLS):
            arguments = valid(draw.choice([0, 1, 2, 2]))
            for victim in draw.sample(list(arguments), draw.choice([0, 1, 1, 1, min(2, len(arguments))])):
                arguments[victim] = changed(arguments[victim], draw)
            result, error = call(operation, arguments)
            if error is None:
                taken += 1
                check_result(result, operation, arguments)
            else:
                assert names.search(str(error)), f"{error!r} names no argument; {arguments}"
    finally:
        torch.set_num_threads(threads)
    assert CALLS / 10 < taken < CALLS * 0.9


def test_every_operation_is_fuzzed():
    about_backends = {"backends", "record_backends", "requested_backend", "use_backend"}
    made_of_operations = {"accelerate_vae", "tiled_decode"}
    functions = {name for name in ext.__all__ if name[0].islower()}
    assert functions - about_backends - made_of_operations == set(OPERATIONS)
