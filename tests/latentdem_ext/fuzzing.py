"""Random calls of an operation: each returns tensors or raises an error that names an argument."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import latentdem_ext as ext

CALLS = 2000


def fuzz(operation: Callable[..., Any], valid: Callable[[int], dict[str, Any]]) -> None:
    """Call `operation` with the `valid` arguments of a batch size, some of them changed at random."""
    draw = random.Random(operation.__name__)
    names = re.compile(rf"\b({'|'.join(valid(1))})\b")
    accepted = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny
    try:
        for _ in range(CALLS):
            arguments = valid(draw.choice([0, 1, 2, 2]))
            for victim in draw.sample(list(arguments), draw.choice([0, 1, 1, 1, min(2, len(arguments))])):
                arguments[victim] = changed(arguments[victim], draw)
            result, error = call(operation, arguments)
            if error is None:
                accepted += 1
                check_result(result, operation, arguments)
            else:
                assert names.search(str(error)), f"{error!r} names no argument; {arguments}"
    finally:
        torch.set_num_threads(threads)
    assert CALLS / 10 < accepted < CALLS * 0.9


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
            return draw.choice([None, tuple(value), 1, value[0]])
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
    """`result` has the shapes and dtypes of the reference, and its values where rounding does not decide."""
    with ext.use_backend("reference"):
        expected = operation(**arguments)
    results, definitions = ([r] if isinstance(r, Tensor) else list(r) for r in (result, expected))
    assert len(results) == len(definitions) > 0
    for value, definition in zip(results, definitions, strict=True):
        assert value.shape == definition.shape
        assert value.dtype == definition.dtype
        assert value.device == definition.device
        if value.numel() and not value.is_meta and tame(arguments):
            value, definition = value.detach(), definition.detach()
            tolerance = max(1e-4, 4 * torch.finfo(value.dtype).eps) * max(
                1.0, float(definition.nan_to_num(0, 0, 0).abs().max())
            )
            torch.testing.assert_close(value, definition, rtol=0, atol=tolerance, equal_nan=True)
