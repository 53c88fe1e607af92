"""The state of PyTorch that computations need, whatever the caller has set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def own_context() -> Iterator[None]:
    """Computes in float32 on the device that is named, outside the caller's autocast and inference mode.

    Under autocast the least squares would run in half precision, a default data type of float64 mixes types,
    and inference mode forbids the gradients of some E-steps. All of these are as before afterwards.

    After a fork PyTorch's threads do not exist in the new process, and the first operation that waits for them
    never ends. There the computation goes on with one thread, and a warning.
    """
    if _forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warnings.warn(
            "This process was made by a fork, after which PyTorch hangs with several threads, so it uses one; "
            "start processes with multiprocessing.get_context('spawn') to use more.",
            UserWarning,
            stacklevel=4,
        )
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
