"""One step of DDRM for circular blur, whose singular vectors are those of the discrete Fourier transform.

DDRM (Kawar et al., NeurIPS 2022) runs the diffusion in the spectral space of the operator: each coefficient of
the image is noisier than its measurement, less noisy, or not measured at all, and is drawn accordingly.
GibbsDDRM (Murata et al., ICML 2023) modifies the second case; its Eq. 9 is implemented here. The noise of its
images x_t has the standard deviation sigma_t = sqrt((1 - abar_t) / abar_t): they are those of a DDPM divided by
sqrt(abar_t).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import latentdem_ext as ext

_UNMEASURED = 0.05  # singular values below this count as 0 (release of GibbsDDRM)


class SpectralStep(NamedTuple):
    """The distribution of the image x_{t-1} after a step.

    Attributes:
        clean: (B, C, H, W) its mean without the old noise.
        old: (B, 1, H, W // 2 + 1) factor of the old unit noise, that is of the predicted one, in Fourier space.
        fresh: (B, 1, H, W // 2 + 1) standard deviation of the fresh noise in the same.
    """

    clean: Tensor
    old: Tensor
    fresh: Tensor

    def draw(self, old_noise: Tensor, fresh_noise: Tensor) -> Tensor:
        """x_{t-1} (B, C, H, W), given unit noises of its shape."""
        noise = self.old * torch.fft.rfft2(old_noise) + self.fresh * torch.fft.rfft2(fresh_noise)
        return self.clean + torch.fft.irfft2(noise, s=self.clean.shape[-2:])


@dataclass(frozen=True)
class DDRMStep:
    """A step with s = |F k|, y' = F y / F k, noise sigma_y of the measurement and sigma' of the next image.

    s sigma' >= sigma_y (noisier than the measurement): mean (1 - eta_b) x0 + eta_b y', variance
    sigma'^2 - eta_b^2 sigma_y^2 / s^2.
    0 < s sigma' < sigma_y: mean x0 + eta_c sigma' (y' - x0) s / sigma_y, variance (1 - eta_c^2) sigma'^2.
    s = 0: mean x0, and of the noise sigma' the share eta_d^2 of the variance is fresh, the rest the old noise.

    Attributes:
        eta_b, eta_c, eta_d: the constants of the release for FFHQ (its eta_a, the old noise in the second case,
            is 0).
    """

    eta_b: float = 0.9
    eta_c: float = 0.8
    eta_d: float = 0.8

    def __call__(
        self, x0: Tensor, y: Tensor, kernel: Tensor, sigma_y: Tensor, sigma_next: Tensor
    ) -> SpectralStep:
        """The step.

        Args:
            x0: (B, C, H, W) predicted clean image.
            y: (B, C, H, W) measurement.
            kernel: (B, 1, K, K).
            sigma_y: (B,) standard deviation of its noise.
            sigma_next: (B,) of the noise of the next image.
        """
        otf = ext.kernel_to_otf(kernel, (x0.shape[-2], x0.shape[-1]))
        s, after = otf.abs(), sigma_next.view(-1, 1, 1, 1)
        measured = s >= _UNMEASURED
        ratio = sigma_y.view(-1, 1, 1, 1) / s.clamp_min(_UNMEASURED)  # noise of y'
        noisier = measured & (after >= ratio)
        pull = torch.where(noisier, self.eta_b, self.eta_c * after / ratio)
        variance = torch.where(
            noisier,
            (after.square() - (self.eta_b * ratio).square()).clamp_min(0),
            (1 - self.eta_c**2) * after.square(),
        )
        unmeasured = self.eta_d**2 * after.square()
        prediction = torch.fft.rfft2(x0)
        inverse = torch.fft.rfft2(y) / torch.where(measured, otf, 1.0)
        mean = prediction + torch.where(measured, pull, 0.0) * (inverse - prediction)
        return SpectralStep(
            torch.fft.irfft2(mean, s=x0.shape[-2:]),
            torch.where(measured, 0.0, (1 - self.eta_d**2) ** 0.5 * after),
            torch.where(measured, variance, unmeasured).sqrt(),
        )
