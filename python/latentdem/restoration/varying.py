"""The blur of photographs whose camera turned, for their restoration."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..operators.blur import pad_kernel
from ..search.camera_poses import KernelField
from ..search.layout import Layout
from ..search.varying_start import VARYING_PARTS, estimate_field, field_score
from ..solver.measurement import Measurement
from ..solver.passes import Hooks
from .unexplained import excess_share

_log = logging.getLogger(__name__)

_GRID = 5  # kernels along each side of a photograph that are shown
_STEPS = 8  # full EM steps of a photograph that take about as long as a part of the search


@dataclass(frozen=True)
class FieldFound:
    """What the search found for one photograph: its blur, and its lead, see `Result`."""

    field: KernelField
    lead: float

    @property
    def middle(self) -> Tensor:
        """The kernel (1, 1, K, K) in the middle of the photograph."""
        return self.field.in_window(*(slice(0, n) for n in self.field.size))

    def checked(self, photograph: Measurement, residual: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """What tells whether the kernels are right: attributes of `Result`, (1,) each.

        Args:
            photograph: what was measured.
            residual, variance: (1,) of the restoration, means over its tiles.
        """
        return {
            "unexplained": excess_share(photograph, residual, variance),
            "lead": torch.full_like(residual, self.lead),
        }


def find_field(photograph: Measurement, kernel_size: int | None, largest: int, hooks: Hooks) -> FieldFound:
    """The blur of one photograph, see `estimate_field`."""
    pixels = photograph.size[0] * photograph.size[1]

    def on_part() -> None:
        if hooks.on_work is not None:
            hooks.on_work("kernel search", pixels * _STEPS)

    field = estimate_field(photograph, kernel_size, largest, on_part)
    rolled, size = math.degrees(field.roll), field.kernel_size
    _log.info("The camera turned by %.2f degrees (standard deviation); kernel size %d.", rolled, size)
    lead = field_score(photograph, field, turned=True) - field_score(photograph, field)
    return FieldFound(field, lead)


def search_work(layout: Layout) -> int:
    """Pixels of the full EM steps that take as long as the search in one photograph."""
    return layout.height * layout.width * _STEPS * VARYING_PARTS


def joined_fields(found: list[FieldFound]) -> Tensor:
    """`Result.kernel_field`: kernels (B, 25, K, K) of photographs, in frames of the largest K."""
    size = max(one.field.kernel_size for one in found)
    return torch.stack([pad_kernel(one.field.on_grid(_GRID), size)[:, 0] for one in found])
