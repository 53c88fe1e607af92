"""Accuracy of the kernel at every step of a run (Fig. 5 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..metrics import kernel_metrics
from ..operators.blur import resize_kernel
from ..output.result import Result


@dataclass(frozen=True)
class Moment:
    """One full EM step: its stage and timestep, the residual in units of [-1, 1] and the kernel's MNC."""

    stage: str
    t: int
    residual: float
    mnc: float


def accuracy(result: Result, truth: Tensor) -> list[Moment]:
    """Residual and kernel accuracy at every step of a result of one image.

    Kernels of a search at reduced size are enlarged to the size of the true one.

    Args:
        result: result of one image, with its trace.
        truth: (1, 1, K, K) true kernel.
    """
    size = truth.shape[-1]
    moments = []
    for step in result.trace:
        kernel = step.parameters
        if kernel.shape[-1] != size:
            kernel = resize_kernel(kernel, size, round(size / kernel.shape[-1]))
        mnc = kernel_metrics(kernel, truth).mnc
        moments.append(Moment(step.stage, step.t, float(step.residual[0]), mnc))
    return moments
