"""Whether a call needs PyTorch's dispatcher.

For a registered Python operation it takes about as long as the arithmetic of a diffusion step of small latents,
and it is not needed where nothing is traced, transformed, profiled or differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def _questions() -> tuple[Callable[[], Any], ...]:
    """Functions that return something false where their part of PyTorch is not at work.

    They are not public, but have existed since PyTorch 2.0; without them the dispatcher is always called.
    """
    try:
        return (
            torch.compiler.is_compiling,
            torch._C._get_tracing_state,
            torch._C._len_torch_dispatch_stack,
            torch._C._functorch.peek_interpreter_stack,
            torch._C._autograd._profiler_enabled,
        )
    except AttributeError:
        return (lambda: True,)


_QUESTIONS = _questions()
_PLAIN = (Tensor, nn.Parameter)  # other subclasses may change what a call does


def needs_dispatcher(*arguments: Any) -> bool:
    """Whether an operation with these arguments has to be called through PyTorch's dispatcher."""
    for is_at_work in _QUESTIONS:
        if is_at_work():
            return True
    if getattr(forward_ad, "_current_level", 0) >= 0:
        return True
    differentiating = torch.is_grad_enabled()
    for argument in arguments:
        if isinstance(argument, Tensor) and (
            type(argument) not in _PLAIN
            or argument.device.type not in ("cpu", "cuda")
            or (differentiating and argument.requires_grad)
        ):
            return True
    return False
