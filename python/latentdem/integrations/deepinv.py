"""deepinv: the method as a `Reconstructor`, the kernel denoiser as a `Denoiser`, kernel quality as metrics.

Conventions of deepinv: images and noise levels are in [0, 1], a forward model is a `Physics`, parameters are
passed as dictionaries. A kernel is {"filter": k} with k (B, 1, K, K), in both libraries a true convolution with
its origin at K // 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    import deepinv
except ImportError as error:
    raise ImportError(f"deepinv cannot be imported ({error}): pip install deepinv") from error

from ..checks import check_kernel, resolve_device
from ..errors import UserError
from ..metrics import kernel_metrics
from ..priors import LatentPrior, load_prior
from ..priors.kernel_denoiser import load_kernel_denoiser
from ..restoration.image import ImageRestoration
from ..restoration.noise import estimate_noise_sigma
from ..restoration.settings import Settings
from ._physics import measurement_of, restore_known

_FLOOR = 1e-3  # least standard deviation of the noise in [0, 1], close to that of rounding to 8 bits


class LatentDEMReconstructor(deepinv.models.Reconstructor):
    """Restores images measured through a deepinv physics, and the blur kernel where it is unknown.

    - `BlurFFT` and `Blur` without a filter: blind deblurring. `BlurFFT` and `Blur(padding="circular")` wrap
      around; with other paddings only the interior of the measurement is used.
    - With a filter, and any other real-valued physics (`Downsampling`, `Inpainting`, `Tomography`, ...): the
      operator is known. Decomposable physics are solved in closed form by their `prox_l2`,
      others by conjugate gradients with `A` and `A_adjoint`, or by back-propagation where A is not linear.

    Args:
        kernel_size: width K of an unknown K x K kernel.
        prior: "embedded", a checkpoint or a `LatentPrior`, see `latentdem.deblur`.
        noise_sigma: standard deviation of the noise in units of [0, 1]; None takes that of the physics'
            Gaussian noise model, or estimates it from y.
        steps: diffusion steps per 1000 timesteps; None takes the default.
        seed: random seed.
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: the prior or device cannot be used.
    """

    def __init__(
        self,
        kernel_size: int = 33,
        *,
        prior: str | Path | LatentPrior = "embedded",
        noise_sigma: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        torch_device = resolve_device(device)
        super().__init__(device=torch_device)
        self.kernel_size, self.noise_sigma, self.steps, self.seed = kernel_size, noise_sigma, steps, seed
        self._torch_device, self._prior = torch_device, load_prior(prior, torch_device)
        self._denoiser = load_kernel_denoiser(device=torch_device)

    def forward(self, y: Tensor, physics: Any, **kwargs: Any) -> Tensor:
        """Restored images (B, C, H, W) in [0, 1], on the device of y.

        Args:
            y: measurement; (B, C, H, W) with C = 1 or 3 for a blur.
            physics: the forward model; not changed unless `kwargs` are given.
            kwargs: parameters of the physics to update first, as deepinv's own models do.

        Raises:
            UserError: a size or a noise level does not fit the physics.
        """
        return self.estimate(y, physics, **kwargs)[0]

    @torch.no_grad()
    def estimate(self, y: Tensor, physics: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The images of `forward`, and {"filter": k (B, 1, K, K)} for `physics.update`.

        The dictionary is empty for a physics that has no filter.

        Raises:
            UserError: as for `forward`.
        """
        if kwargs:
            physics.update(**kwargs)
        sigma = self._sigma(y, physics)
        blur = isinstance(physics, (deepinv.physics.Blur, deepinv.physics.BlurFFT))
        known = getattr(physics, "filter", None)
        kernel = _one_kernel(known, len(y)) if blur and known is not None else None
        circular = isinstance(physics, deepinv.physics.BlurFFT) or getattr(physics, "padding", "") == "circular"
        if blur and (known is None or (kernel is not None and circular)):
            image, estimate = self._deblur(y, kernel, sigma, circular)
            if circular:
                return image, {"filter": estimate}
            physics, known = deepinv.physics.Blur(filter=estimate, padding=physics.padding), estimate
        measured = measurement_of(physics, y)
        image = restore_known(measured, sigma, self._prior, self._torch_device, self.seed, self.steps)
        return image.to(y.device), {"filter": known} if isinstance(known, Tensor) else {}

    def _deblur(self, y: Tensor, kernel: Tensor | None, sigma: Tensor, circular: bool) -> tuple[Tensor, Tensor]:
        alike = bool((sigma == sigma[0]).all())
        images, kernels = [], []
        for rows in [slice(None)] if alike else [slice(i, i + 1) for i in range(len(y))]:
            settings = Settings(
                self.kernel_size,
                min(float(2 * sigma[rows][0]), 1.0),
                steps=self.steps,
                seed=self.seed,
                boundary="circular" if circular else "valid",
            )
            known = None if kernel is None else kernel[rows].cpu()
            restoration = ImageRestoration((2 * y[rows] - 1).float().cpu(), settings, known)
            result = restoration.run(self._prior, self._denoiser, self._torch_device)
            images.append(result.tensor)
            kernels.append(result.kernel)
        return (torch.cat(images).to(y) + 1) / 2, torch.cat(kernels).to(y)

    def _sigma(self, y: Tensor, physics: Any) -> Tensor:
        """(B,) standard deviation of the noise in units of [0, 1]."""
        given: Any = self.noise_sigma
        if given is None and isinstance(physics.noise_model, deepinv.physics.GaussianNoise):
            given = physics.noise_model.sigma
        if given is None:
            if y.dim() != 4 or min(y.shape[-2:]) < 32 or y.shape[1] > 3:
                raise UserError(
                    "The noise level cannot be estimated from a measurement that is not an image; give "
                    "noise_sigma, or a physics with deepinv's GaussianNoise."
                )
            given = estimate_noise_sigma(2 * y - 1) / 2
        level = torch.as_tensor(given, dtype=torch.float32).flatten()
        if len(level) not in (1, len(y)) or not (level >= 0).all():
            raise UserError(f"A noise level is one number or one for each of {len(y)} images, not negative.")
        return level.clamp(min=_FLOOR).expand(len(y))


def _one_kernel(filter: Tensor, batch: int) -> Tensor | None:
    """The filter as a kernel (B, 1, K, K); None where channels differ or it is not a blur kernel."""
    kernel = filter[:, :1]
    if not torch.equal(kernel.expand_as(filter), filter):
        return None
    try:
        return check_kernel(kernel, batch)
    except UserError:
        return None


class KernelDenoiser(deepinv.models.Denoiser):
    """The denoiser of the M-step: blur kernels (B, 1, K, K) of any scale and size.

    Args:
        device: where the denoiser runs.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__(device=device)
        self.network = load_kernel_denoiser(device=device)

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: Any) -> Tensor:
        """Denoised kernels, not clipped and not normalised; `sigma` (B,) or a number in the units of x."""
        peak = x.amax(dim=(1, 2, 3)).clamp_min(torch.finfo(x.dtype).tiny)
        return self.network.denoise(x, torch.as_tensor(sigma, dtype=x.dtype, device=x.device) / peak)


class KernelMSE(deepinv.loss.metric.Metric):
    """Mean squared error of kernels of peak 1 at the best shift: see `latentdem.metrics.kernel_metrics`."""

    def metric(self, x_net: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B,) of estimated and true kernels (B, 1, K, K)."""
        return torch.tensor([kernel_metrics(a, b).mse for a, b in zip(x_net, x, strict=True)])


class KernelMNC(deepinv.loss.metric.Metric):
    """Maximum of normalised cross-correlation of kernels: see `latentdem.metrics.kernel_metrics`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lower_better = False

    def metric(self, x_net: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B,) of estimated and true kernels (B, 1, K, K)."""
        return torch.tensor([kernel_metrics(a, b).mnc for a, b in zip(x_net, x, strict=True)])
