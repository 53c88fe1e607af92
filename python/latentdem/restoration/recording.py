"""What a restoration measures of photographs: their noise, their boundary, and the light that was blurred."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from ..io.channels import to_rgb
from ..operators import Blur, ToneCurve
from ..search.gradient_score import turned_lead
from ..search.gradient_start import automatic_sizes, sizes_around, starts_for
from ..solver.frame import interior_mask, intersection
from ..solver.measurement import Measurement
from .boundary import looks_circular
from .examination import Examination
from .noise import estimate_noise_sigma
from .settings import Settings

# The lead in linear light from which it is taken, and by which it must be greater; see
# docs/research/linear_light.md.
_LEAST_LEAD, _GREATER = 0.06, 0.01
_ROWS = 512  # of a photograph that are blurred at a time


@dataclass(frozen=True)
class Recording:
    """Photographs as they are measured.

    Attributes:
        measurement: them in three channels, with a tone curve in linear light.
        slope: (B,) by which noise in the values of the file is multiplied in the measurement.
        curve: the tone curve between the light that was blurred and the values; None where these were blurred.
    """

    measurement: Measurement
    slope: Tensor
    curve: ToneCurve | None = None

    @classmethod
    def of(
        cls,
        examined: Examination,
        settings: Settings,
        circular: bool,
        sigma: Tensor | None = None,
        kernel: Tensor | None = None,
    ) -> Recording:
        """The noise level and the tone curve are estimated where the settings leave them open.

        Args:
            examined: B photographs.
            settings: what the user chose.
            circular: whether the blur wraps around.
            sigma: (B,) noise in units of the range of the data, in place of that of the settings.
            kernel: (1 or B, 1, K, K) the true kernel; None where it is unknown.

        Raises:
            UserError: the tone curve of more than one photograph is to be found.
        """
        if sigma is None:
            sigma = _noise(examined, settings)
        if settings.gamma != "auto":
            return cls._with(ToneCurve.named(settings.gamma), examined, sigma, circular)
        if len(examined.y) > 1:
            raise UserError(
                "The tone curve is found for one photograph at a time; restore them one by one, "
                "or give gamma as 1, srgb or an exponent."
            )
        in_values, in_light = (cls._with(curve, examined, sigma, circular) for curve in (None, ToneCurve()))
        lead, lead_in_light = (float(one.lead(settings, kernel)) for one in (in_values, in_light))
        return in_light if lead_in_light >= max(_LEAST_LEAD, lead + _GREATER) else in_values

    @classmethod
    def _with(cls, curve: ToneCurve | None, examined: Examination, sigma: Tensor, circular: bool) -> Recording:
        light, slope = examined.y, torch.ones(len(examined.y))
        if curve is not None:
            light, slope = curve.light(examined.y), _mean_slope(curve, examined)
        return cls(Measurement(to_rgb(light), sigma * slope, examined.mask, circular), slope, curve)

    @property
    def gamma(self) -> float | str:
        """The tone curve as a setting."""
        if self.curve is None:
            return 1.0
        return "srgb" if self.curve.exponent is None else self.curve.exponent

    def lead(self, settings: Settings, kernel: Tensor | None) -> Tensor:
        """The lead (B,) of the true kernel, or of the first one that gradients give, see `turned_lead`."""
        if kernel is None:
            side = min(self.measurement.size)
            sizes = automatic_sizes(side)
            if settings.kernel_size is not None:
                sizes = sizes_around(settings.kernel_size, side)
            automatic = settings.kernel_size is None
            kernel = starts_for(self.measurement, sizes[-1], sizes, automatic).kernels[:, 0]
        return turned_lead(self.measurement, kernel.expand(len(self.measurement), -1, -1, -1))

    def residual(self, image: Tensor, kernel: Tensor, measurement: Measurement) -> Tensor:
        """Root mean square (B,) of y - k * x where a blur sees only pixels of the image.

        Args:
            image: (B, 3, H, W) as it looks; with a tone curve its linear light is x.
            kernel: (B, 1, K, K).
            measurement: y, some of the photographs.
        """
        size, (height, width) = kernel.shape[-1], measurement.size
        before, rows = size - 1, height if measurement.circular else _ROWS
        total, count = torch.zeros_like(measurement.sigma), torch.zeros_like(measurement.sigma)
        for top in range(0, max(height - before, 1), rows):  # of large photographs, as memory is short
            part = measurement.window(slice(top, min(top + rows + before, height)), slice(0, width))
            inside = interior_mask(*part.size, 1 if part.circular else size, part.y.device)
            mask = intersection(inside, part.mask)
            light = image[..., top : top + part.size[0], :]
            light = light if self.curve is None else self.curve.light(light)
            counts = part.y.new_tensor(float(part.y[0, 0].numel())) if mask is None else mask.sum((1, 2, 3))
            mean = Blur(size, mask=mask).mean_square(light, kernel, part.y)
            total += torch.where(counts > 0, counts * mean, 0)
            count += counts
        return (total / count).sqrt()


def wraps_around(photographs: Tensor, settings: Settings) -> bool:
    """Whether the blur of photographs (B, C, H, W) wraps around, as the settings say or their edges show."""
    boundary = settings.boundary
    return looks_circular(photographs) if boundary == "auto" else boundary == "circular"


def _noise(examined: Examination, settings: Settings) -> Tensor:
    """Standard deviation (B,) of the noise in units of the range of the data."""
    if settings.noise_sigma is None:
        return estimate_noise_sigma(examined.y, examined.mask, examined.step)
    return float(settings.noise_sigma) / examined.data_range.scale


def _mean_slope(curve: ToneCurve, examined: Examination) -> Tensor:
    """Root mean square (B,) of the curve's slope over the pixels that count."""
    mask = torch.ones_like(examined.y[:, :1]) if examined.mask is None else examined.mask
    squares = curve.slope(examined.y).square().mean(1, keepdim=True) * mask
    return (squares.sum((1, 2, 3)) / mask.expand_as(squares).sum((1, 2, 3))).sqrt()
