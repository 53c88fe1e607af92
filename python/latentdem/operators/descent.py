"""Minimisation of a cost per image over named values, with projections, by torch's optimisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Optimizer = Literal["adam", "lbfgs"]
Values = dict[str, Tensor]

_ADAM_STEPS = 30
_LBFGS_ROUNDS, _LBFGS_STEPS = 3, 5  # the values are projected after every round


def descend(
    cost: Callable[[Values, slice], Tensor],
    values: Values,
    steps: Mapping[str, float],
    project: Callable[[str, Tensor], Tensor],
    by: Optimizer,
) -> Values:
    """Returns values of lower cost.

    Args:
        cost: called with values (b, *shape) of a slice of the batch; returns (b,) costs and mixes no images.
        values: (B, *shape) each, to start from.
        steps: by name of the values to optimise, in their own units: step of Adam, first step of L-BFGS.
        project: called as project(name, value); returns the nearest allowed value.
        by: "adam" for all images at once, or "lbfgs" with a strong Wolfe line search, image by image because
            its steps couple all entries.
    """
    constants = {name: value for name, value in values.items() if name not in steps}

    def loss(scaled: Values, rows: slice) -> Tensor:
        moved = {name: value * steps[name] for name, value in scaled.items()}
        return cost({**{name: value[rows] for name, value in constants.items()}, **moved}, rows).sum()

    def allowed(scaled: Values) -> None:
        for name, value in scaled.items():
            value.data = project(name, value.data * steps[name]) / steps[name]

    batch = len(next(iter(values.values())))
    parts = [slice(0, batch)] if by == "adam" else [slice(i, i + 1) for i in range(batch)]
    results: list[Values] = []
    for rows in parts:
        scaled = {name: (values[name][rows] / step).requires_grad_() for name, step in steps.items()}
        (_adam if by == "adam" else _lbfgs)(scaled, rows, loss, allowed)
        results.append({name: value.detach() * steps[name] for name, value in scaled.items()})
    return {**constants, **{name: torch.cat([part[name] for part in results]) for name in steps}}


def _adam(
    scaled: Values, rows: slice, loss: Callable[[Values, slice], Tensor], allowed: Callable[[Values], None]
) -> None:
    """Adam scales every entry by itself, so that images do not mix."""
    adam = torch.optim.Adam(scaled.values(), lr=1.0)
    for _ in range(_ADAM_STEPS):
        with torch.enable_grad():
            adam.zero_grad()
            loss(scaled, rows).backward(inputs=list(scaled.values()))
        adam.step()
        allowed(scaled)


def _lbfgs(
    scaled: Values, rows: slice, loss: Callable[[Values, slice], Tensor], allowed: Callable[[Values], None]
) -> None:
    for _ in range(_LBFGS_ROUNDS):
        lbfgs = torch.optim.LBFGS(scaled.values(), max_iter=_LBFGS_STEPS, line_search_fn="strong_wolfe")

        def closure(lbfgs: torch.optim.LBFGS = lbfgs) -> Tensor:
            with torch.enable_grad():
                lbfgs.zero_grad()
                value = loss(scaled, rows)
                value.backward(inputs=list(scaled.values()))
            return value

        lbfgs.step(closure)
        allowed(scaled)
