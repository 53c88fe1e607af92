"""Muon, the optimiser, for the weights of convolutions, too; PyTorch's own takes matrices alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # drives the singular values of a matrix towards 1
ITERATIONS = 5
LIKE_ADAM = 0.2  # root mean square of a step of AdamW, in units of its rate


class Muon(Optimizer):
    """Steps along the momentum with its singular values made equal, a convolution being taken for a matrix.

    Sources: Jordan et al. 2024, *Muon: an optimizer for hidden layers in neural networks*; the size of a step
    as in Liu et al. 2025, *Muon is scalable for LLM training*, so that rates are comparable to those of AdamW.

    Args:
        params: weights with two or more dimensions, outputs first.
        lr: rate.
        momentum: of Nesterov's kind.
        weight_decay: share of a weight that a rate of 1 takes away.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients there are."""
        for group in self.param_groups:
            weights = [each for each in group["params"] if each.grad is not None]
            means = [self.state[each].setdefault("mean", torch.zeros_like(each)) for each in weights]
            gradients = [each.grad for each in weights]
            torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, means, group["momentum"])
            # Matrices of one shape together: far fewer and larger products.
            alike: dict[tuple[int, int], list[int]] = defaultdict(list)
            for i, each in enumerate(weights):
                alike[len(each), each[0].numel()].append(i)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for shape, indices in alike.items():
                steps = orthogonalised(torch.stack([ahead[i].flatten(1) for i in indices]))
                size = LIKE_ADAM * max(shape) ** 0.5 * group["lr"]
                for i, step in zip(indices, steps, strict=True):
                    weights[i].sub_(step.view_as(weights[i]), alpha=size)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (k, m, n) with singular values near 1, by Newton and Schulz's iteration in bfloat16."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def hidden_weights(model: nn.Module, others: Iterable[str] = ()) -> tuple[list[Tensor], list[Tensor]]:
    """What Muon should train of a model and what it should not, of the parameters that are trained.

    Args:
        model: the model.
        others: beginnings of the names of weights that are not hidden, as those of the first and last layers.
    """
    names = tuple(others)
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (hidden if weight.ndim > 1 and not name.startswith(names) else rest).append(weight)
    return hidden, rest
