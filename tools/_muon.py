"""The Muon optimiser, also for the weights of convolutions; PyTorch's own accepts matrices only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # drives the singular values of a matrix towards 1
ITERATIONS = 5
LIKE_ADAM = 0.2  # root mean square of a step of AdamW, in units of its learning rate


class Muon(Optimizer):
    """Steps along the momentum with equalised singular values; the weights of a convolution form one matrix.

    Sources: Jordan et al. 2024, *Muon: an optimizer for hidden layers in neural networks*; the size of a step
    as in Liu et al. 2025, *Muon is scalable for LLM training*, so that rates are comparable to those of AdamW.

    Args:
        params: weights with two or more dimensions, outputs first.
        lr: learning rate.
        momentum: Nesterov momentum.
        weight_decay: share of a weight that decays per step at a learning rate of 1.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Makes one step for all weights with gradients."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            means = [self.state[weight].setdefault("mean", torch.zeros_like(weight)) for weight in weights]
            gradients = [weight.grad for weight in weights]
            torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, means, group["momentum"])
            # Matrices of one shape are stacked, for far fewer and larger products.
            alike: dict[tuple[int, int], list[int]] = defaultdict(list)
            for i, weight in enumerate(weights):
                alike[len(weight), weight[0].numel()].append(i)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for shape, indices in alike.items():
                steps = orthogonalised(torch.stack([ahead[i].flatten(1) for i in indices]))
                size = LIKE_ADAM * max(shape) ** 0.5 * group["lr"]
                for i, step in zip(indices, steps, strict=True):
                    weights[i].sub_(step.view_as(weights[i]), alpha=size)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (k, m, n) with singular values near 1, by the Newton-Schulz iteration in bfloat16."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def hidden_weights(model: nn.Module, others: Iterable[str] = ()) -> tuple[list[Tensor], list[Tensor]]:
    """Splits the trainable parameters of a model into those for Muon and all others.

    Args:
        model: the model.
        others: prefixes of the names of weights that are not hidden, such as those of the first and last
            layers.
    """
    names = tuple(others)
    hidden: list[Tensor] = []
    rest: list[Tensor] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (hidden if weight.ndim > 1 and not name.startswith(names) else rest).append(weight)
    return hidden, rest
