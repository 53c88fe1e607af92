"""Blur of the light that a camera receives, before its tone curve."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import latentdem_ext as ext

from .blur import HQS, Blur, Denoiser
from .least_squares import conjugate_gradients
from .tone_curve import ToneCurve

_LEAST_SLOPE = 0.1  # of the tone curve in the least squares, which black pixels of a power would else not enter
_TOLERANCE = 1e-3  # of the gradient of the least squares, in units of that at the start
_ITERATIONS = 200  # at most; 30 to 70 are usual


class LinearLightBlur(Blur):
    """y = k * g(x) + n: x is an image as it looks, g(x) its linear light, and y is in linear light.

    The least squares in x are linearised at the prediction, g(x) ~ g(x0) + g'(x0) (x - x0), so that the
    distance to the prior's image is taken as it looks. Converting the prior's image to linear light and
    measuring the distance there is simpler, but lets dark pixels move too far (docs/research/linear_light.md).

    Args:
        kernel_size, denoiser, hqs, mask, fixed: see `Blur`.
        curve: g.
    """

    linear = False

    def __init__(
        self,
        kernel_size: int,
        denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor] | None = None,
        hqs: HQS | None = None,
        mask: Tensor | None = None,
        fixed: bool = False,
        *,
        curve: ToneCurve,
    ) -> None:
        super().__init__(kernel_size, denoiser, hqs, mask, fixed)
        self.curve = curve

    def light(self, x: Tensor) -> Tensor:
        """g(x), (..., C, H, W)."""
        return self.curve.light(x)

    @property
    def capturable(self) -> bool:
        return False  # `proximal` asks whether it has converged

    def __call__(self, x: Tensor, kernel: Tensor) -> Tensor:
        """k * g(x), (B, C, H, W)."""
        return ext.blur(self.light(x), kernel)

    def adjoint(self, gap: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
        """Correlation of `gap` with k, times g'(x)."""
        return self.curve.slope(x) * ext.blur_adjoint(gap, kernel)

    def spectrum(self, x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As that of `Blur`, the gain times the mean square of g'(x)."""
        gain, power = super().spectrum(x, kernel, y)
        return gain * self._slope(x).square().mean((1, 2, 3)).view(-1, 1), power

    def fidelity(self, x: Tensor, kernel: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """||y - k * g(x)||^2 (B,), its gradient in x and the gluing target x + A^T (y - k * g(x))."""
        gap = self.fill(y, x, kernel) - self(x, kernel)
        back = self.adjoint(gap, x, kernel)
        return gap.square().sum((1, 2, 3)), -2 * back, x + back

    def proximal(self, x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """argmin_x ||y - k * g(x)||^2 + rho ||x - x0||^2, g linearised at x0, in [-1, 1].

        By conjugate gradients to a tolerance, which determines their number; `iterations` does not.
        """
        x0, weight = x0.clamp(-1, 1), rho.view(-1, 1, 1, 1)
        slope = self._slope(x0)

        def transposed(gap: Tensor) -> Tensor:
            return slope * ext.blur_adjoint(gap if self.mask is None else gap * self.mask, kernel)

        def normal(change: Tensor) -> Tensor:
            return transposed(ext.blur(slope * change, kernel)) + weight * change

        change = conjugate_gradients(
            normal, transposed(y - self(x0, kernel)), _ITERATIONS, tolerance=_TOLERANCE
        )
        return (x0 + change).clamp(-1, 1)

    def find_limits(self, kernel: Tensor, y: Tensor, variance: Tensor) -> None:
        """Sets no `limits`: black and white are the ends of the tone curve, and results are cut there."""

    def _slope(self, x: Tensor) -> Tensor:
        return self.curve.slope(x).clamp_min(_LEAST_SLOPE)
