"""Tone curves of cameras: what they make of linear light, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError

_LARGEST_EXPONENT = 4.0
_LINEAR_PART = 12.92, 0.04045, 0.055, 2.4  # slope, where it ends, offset and exponent of IEC 61966-2-1


@dataclass(frozen=True)
class ToneCurve:
    """The curve between the values of a file and linear light, both in [-1, 1] with black at -1.

    With u and l the values and the light in [0, 1], l = u^exponent, or the curve of sRGB (IEC 61966-2-1), which
    is a straight line near black and a power of 2.4 above.

    Attributes:
        exponent: from 1, values that are linear already, to 4; None for sRGB.
    """

    exponent: float | None = None

    @classmethod
    def named(cls, name: object) -> ToneCurve | None:
        """The curve "srgb", or that of an exponent; None for the exponent 1.

        Raises:
            UserError: there is no such curve.
        """
        if name == "srgb":
            return cls()
        try:
            exponent = float(name)  # type: ignore[arg-type]  # refused where it is no number
        except (TypeError, ValueError):
            exponent = 0.0
        if not 1 <= exponent <= _LARGEST_EXPONENT:
            raise UserError(
                f"Unknown tone curve {name!r}; give srgb or an exponent from 1 (values that are linear light) "
                f"to {_LARGEST_EXPONENT:g}, such as 2.2."
            )
        return None if exponent == 1 else cls(exponent)

    def light(self, values: Tensor) -> Tensor:
        """The linear light (...) of values (...), which are clamped to [-1, 1]."""
        u = ((values + 1) / 2).clamp(0, 1)
        if self.exponent is not None:
            return 2 * u**self.exponent - 1
        slope, end, offset, power = _LINEAR_PART
        # The power of a clamped value, or the derivative of the branch not taken would spoil the other one.
        curved = ((u.clamp_min(end) + offset) / (1 + offset)) ** power
        return 2 * torch.where(u <= end, u / slope, curved) - 1

    def values(self, light: Tensor) -> Tensor:
        """The values (...) of linear light (...), which is clamped to [-1, 1]: the inverse of `light`."""
        linear = ((light + 1) / 2).clamp(0, 1)
        if self.exponent is not None:
            return 2 * linear ** (1 / self.exponent) - 1
        slope, end, offset, power = _LINEAR_PART
        curved = (1 + offset) * linear.clamp_min(end / slope) ** (1 / power) - offset
        return 2 * torch.where(linear <= end / slope, linear * slope, curved) - 1

    def slope(self, values: Tensor) -> Tensor:
        """The derivative (...) of `light` at values (...), which are clamped to [-1, 1]."""
        u = ((values + 1) / 2).clamp(0, 1)
        if self.exponent is not None:
            return self.exponent * u ** (self.exponent - 1)
        slope, end, offset, power = _LINEAR_PART
        curved = power / (1 + offset) * ((u.clamp_min(end) + offset) / (1 + offset)) ** (power - 1)
        return torch.where(u <= end, torch.full_like(u, 1 / slope), curved)
