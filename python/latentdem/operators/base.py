"""Interface of forward operators to the solver, with defaults by automatic differentiation."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .least_squares import Linearised, gauss_newton


class Operator(ABC):
    """y = A(x; parameters) + n, known up to its parameters.

    The parameters of a batch are one tensor (B, ...), a row per image, whose meaning is up to the operator.
    `Blur` has kernels (B, 1, K, K); operators with named parameters (`Parametric`) pack them into (B, P).

    A subclass defines `__call__` with operations that autograd differentiates. The other methods follow from it
    and are overridden where there is a closed form. None of them may mix the images of a batch.

    Attributes:
        linear: whether A is linear in x.
        warm_start: state of the last proximal step, from which the next one starts; None where there is none.
        capturable: whether its methods can be captured in CUDA graphs, as none asks the device for a value.
    """

    linear: bool = True
    warm_start: Tensor | None = None

    @property
    def capturable(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, x: Tensor, parameters: Tensor) -> Tensor:
        """A(x), (B, C, h, w), of x (B, C, H, W) in [-1, 1]."""

    def image_size(self, y: Tensor) -> tuple[int, int]:
        """(H, W) of the images that are measured as `y` (B, C, h, w)."""
        return y.shape[-2], y.shape[-1]

    def measured(self, y: Tensor) -> Tensor | None:
        """Mask that broadcasts to `y`, 1 where it was measured, else 0; None where all of it was."""
        return None

    def fill(self, y: Tensor, x: Tensor, parameters: Tensor) -> Tensor:
        """`y` with what was not measured replaced by its prediction A(x)."""
        mask = self.measured(y)
        return y if mask is None else torch.where(mask > 0, y, self(x, parameters))

    def mean_square(self, x: Tensor, parameters: Tensor, y: Tensor) -> Tensor:
        """(B,) mean square of y - A(x) over what was measured."""
        square = (y - self(x, parameters)).square().mean(1, keepdim=True)
        mask = self.measured(y)
        if mask is None:
            return square.mean((1, 2, 3))
        mask = mask.expand_as(square)
        return (square * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))

    def residual(self, x: Tensor, parameters: Tensor, y: Tensor) -> Tensor:
        """(B,) root mean square of y - A(x) over what was measured."""
        return self.mean_square(x, parameters, y).sqrt()

    def adjoint(self, gap: Tensor, x: Tensor, parameters: Tensor) -> Tensor:
        """A^T `gap`, with the derivative of A at `x` where A is not linear; differentiable in `gap`."""
        return Linearised(self, x, parameters).transpose(gap)

    def spectrum(self, x: Tensor, parameters: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues of A A^T, and mean squares of the coefficients of y - A(x) in their basis, (B, F) each.

        The default takes all eigenvalues as one class, F = 1, with their mean: the mean square of A^T v for a
        unit random vector v, which is the same at every call.
        """
        mask = self.measured(y)
        generator = torch.Generator(y.device).manual_seed(0)
        probe = torch.randn(y.shape[1:], generator=generator, device=y.device, dtype=y.dtype).expand_as(y)
        probe = probe if mask is None else probe * mask
        gain = self.adjoint(probe, x, parameters).square().sum((1, 2, 3)) / probe.square().sum((1, 2, 3))
        return gain[:, None], self.mean_square(x, parameters, y)[:, None]

    def proximal(self, x0: Tensor, parameters: Tensor, y: Tensor, rho: Tensor, iterations: int = 10) -> Tensor:
        """argmin_x ||y - A(x)||^2 + rho ||x - x0||^2 over what was measured, rho (B,), from x0.

        Uses `iterations` of conjugate gradients, in each of a few Gauss-Newton steps where A is not linear.
        """
        return gauss_newton(self, x0, parameters, y, rho, iterations)

    def m_step(self, x: Tensor, y: Tensor, parameters: Tensor, variance: Tensor) -> Tensor:
        """Parameters (B, ...) that explain y given posterior samples; by default `parameters` unchanged.

        Args:
            x: (B, S, C, H, W) posterior samples in [-1, 1].
            y: (B, C, h, w) measurement.
            parameters: (B, ...) to start from.
            variance: (B,) of the measurement noise.
        """
        return parameters
