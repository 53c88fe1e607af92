"""Networks of priors compiled by PyTorch (torch.compile), on request."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from .loading import reason_of

_log = logging.getLogger(__name__)


def compile_networks(prior: Any, device: torch.device) -> None:
    """Has the networks of a prior compiled when they are first called, which takes from seconds to minutes.

    Args:
        prior: one with an attribute `networks`, the modules that it calls.
        device: where they are.

    Raises:
        UserError: they cannot be compiled, on this machine or at all.
    """
    networks: list[nn.Module] | None = getattr(prior, "networks", None)
    if networks is None:
        raise UserError(f"The networks of a {type(prior).__name__} cannot be compiled; leave 'compile' out.")
    _check_compiler(device)
    for network in networks:
        network.compile()
    _log.info("The networks are compiled when they are first called.")


def _check_compiler(device: torch.device) -> None:
    """Raises a UserError unless PyTorch compiles a function, as a compiler for the device is there."""
    try:
        torch.compile(_twice)(torch.zeros(8, device=device))
    except Exception as error:  # those of the compiler have no common class
        raise UserError(
            f"PyTorch cannot compile networks for {device} here: {reason_of(error)}; install what it needs (a "
            "C++ compiler on a CPU, Triton on a GPU), or leave 'compile' out."
        ) from error


def _twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x
