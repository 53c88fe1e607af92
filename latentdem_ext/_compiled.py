"""The backend "compiled": definitions that PyTorch compiles, where that beats our kernels on a GPU.

The rule: an operation whose kernels take more of a GPU's time than its compiled definition, on the shapes of
real runs, names "compiled" before them in its registration, and `FASTER_COMPILED` has the figures. An entry
leaves the table with its registration when tools/gpu_report measures otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _backends


class Loss(NamedTuple):
    """How the kernels of an operation compare with its compiled definition.

    `traced`: inside a function that a caller compiles, the definition takes the operation's place, so that it
    is fused with what surrounds it. Not for Fourier transforms, which nothing is fused with.
    """

    figures: str
    traced: bool = False


# Medians on an H100, PyTorch 2.11 (benchmarks/results/nvidia-h100-80gb-hbm3): our kernels, compiled definition.
# `dps_step` and `renoise` took as long as compiled: their kernels stay because they need no compilation.
FASTER_COMPILED = {
    "group_norm_silu": Loss("128 x 256 x 256: float32 151 us, 63 us; float16 168 us, 35 us", traced=True),
    "hqs_prepare": Loss("3 x 512 x 512, K = 64: 537 us, 318 us; 8 images 377 us, 250 us"),
    "blur_fidelity": Loss("3 x 512 x 512, K = 64: 526 us, 520 us; 8 images 595 us, 273 us"),
}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)  # those of the kernels; float64 is for comparisons


class CannotCompile(Exception):
    """PyTorch cannot compile on this machine; the backend is not available any more."""


def refusal(name: str, tensor: Tensor, *_: Any) -> str:
    """Why the compiled definition is not used, "" if it is."""
    if tensor.device.type != "cuda":
        return f"{name} is on {tensor.device}, not on a CUDA device"
    if tensor.dtype not in _DTYPES:
        return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not float16, bfloat16 or float32"
    return ""


def is_traced_as_defined(operation: str, tensor: Tensor) -> bool:
    """Whether a caller compiles an operation on this tensor whose definition is then faster."""
    loss = FASTER_COMPILED.get(operation)
    return loss is not None and loss.traced and torch.compiler.is_compiling() and not refusal("", tensor)


class Program:
    """A definition, compiled at its first call for tensors of all sizes.

    Raises:
        CannotCompile: PyTorch cannot; a warning has said why.
    """

    def __init__(self, definition: Callable[..., Any], compiler: str = "inductor") -> None:
        self._definition, self._compiler = definition, compiler
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        first = self._compiled is None
        if self._compiled is None:
            self._compiled = torch.compile(self._definition, dynamic=True, backend=self._compiler)
        try:
            # No gradient, as in the kernels: it is registered apart.
            with torch.no_grad(), _without_remarks() if first else nullcontext():
                return self._compiled(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = " ".join(str(error).split("\n")[:2])  # what failed, and in the second line how
            reason = f"PyTorch cannot compile ({said})"
            _backends.give_up_compiling(reason)
            warnings.warn(f"latentdem_ext uses its own kernels: {reason}", stacklevel=2)
            raise CannotCompile from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """PyTorch remarks once that it does not compile complex numbers; what surrounds them, it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation")
        yield
