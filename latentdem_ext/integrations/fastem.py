"""FastDiffusionEM (claroche-r/FastDiffusionEM) and the LatentDEM release: blur, M-step and kernel shift.

    from latentdem_ext.integrations import fastem

    fastem.apply()    # fastem.remove() puts everything back

In `util.utils_agem` or `emutil.utils_agem`, and `fft_blur` also in `guided_diffusion.measurements`:

- `fft_blur` becomes `latentdem_ext.blur`, in both directions;
- `HQS_ker` transforms the images once instead of in every iteration (`hqs_prepare`, `hqs_kernel_update`); the
  regularisation stays the module's own `regularization_step`;
- `data_solution_deblur` takes real transforms instead of complex ones;
- `kernel_shift` is two products with small matrices.

A kernel without a positive value becomes uniform where the original divides by zero. The kernel stays float32
where the denoiser returns half precision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from .._blur import blur
from .._hqs import hqs_kernel_update, hqs_prepare
from .._project_kernel import project_kernel
from ._integration import Integration, Replacement, expect_equal, expect_parameters, probe

_MODULES = ("util.utils_agem", "emutil.utils_agem", "guided_diffusion.measurements")


def _replacements(module: Any) -> Iterator[Replacement]:
    for name, build, check in (
        ("fft_blur", _fft_blur, _check_fft_blur),
        ("HQS_ker", _hqs_ker, _check_hqs_ker),
        ("data_solution_deblur", _data_solution_deblur, _check_data_solution),
        ("kernel_shift", _kernel_shift, _check_kernel_shift),
    ):
        original = getattr(module, name, None)
        if original is not None:
            replacement = wraps(original)(build(original, module))
            check(original, replacement)
            yield Replacement(module, name, replacement)


_integration = Integration("FastDiffusionEM", _MODULES, _replacements)
apply, remove, accelerate = _integration.apply, _integration.remove, _integration.accelerate


def _alike(*tensors: object) -> bool:
    """Whether these are images, all float32 or all float64, on one device."""
    images = [t for t in tensors if isinstance(t, Tensor) and t.dim() == 4 and t.dtype in _checks.FFT_DTYPES]
    return len(images) == len(tensors) and len({(image.dtype, image.device) for image in images}) == 1


def _fits(kernel: Tensor, image: Tensor) -> bool:
    """Whether an operation takes this kernel, for one image or for each."""
    size = kernel.shape[-1]
    return (
        kernel.shape[1:] == (1, size, size)
        and kernel.shape[0] in (1, image.shape[0])
        and 1 <= size <= min(image.shape[-2:])
    )


def _fft_blur(original: Callable[..., Tensor], module: Any) -> Callable[..., Tensor]:
    def fft_blur(img: Tensor, k: Tensor) -> Tensor:
        if not (_alike(img, k) and _fits(k, img)):
            return original(img, k)
        return blur(img, k.expand(img.shape[0], -1, -1, -1))

    return fft_blur


def _check_fft_blur(original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    expect_parameters(original, "img", "k")
    for size in (4, 5):
        expect_equal(original, replacement, probe(2, 3, 12, 9), probe(1, 1, size, size))


def _hqs_ker(original: Callable[..., Tensor], module: Any) -> Callable[..., Tensor]:
    signature = inspect.signature(original)

    def hqs_ker(*args: Any, **kwargs: Any) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        a = bound.arguments
        y, x, kernel, size = a["y"], a["x"], a["init_ker"], a["ksize"]
        if not (
            _alike(y, x, kernel)
            and y.shape[0] == kernel.shape[0] == 1
            and y.shape[1:] == x.shape[1:]
            and _fits(kernel, y)
            and kernel.shape[-1] == size
            and not (torch.is_grad_enabled() and any(t.requires_grad for t in (y, x, kernel)))
        ):
            return original(*args, **kwargs)
        weight = y.new_full((1,), float(a["sigma"] ** 2 * a["beta"]))
        factors = hqs_prepare(x[None], y, weight, size, per_channel=True)
        for _ in range(a["n_iter"]):
            kernel = hqs_kernel_update(kernel, factors)
            kernel = module.regularization_step(
                kernel, a["lamb"], a["beta"], denoiser=a["denoiser"], how=a["reg"]
            )
            # In half precision under autocast, because the denoiser is a network.
            kernel = project_kernel(kernel.to(y.dtype))
        return kernel

    return hqs_ker


def _check_hqs_ker(original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    names = ("y", "x", "sigma", "init_ker", "denoiser", "reg", "beta", "lamb", "n_iter", "ksize")
    expect_parameters(original, *names)

    def denoiser(kernel_and_level: Tensor) -> Tensor:
        return kernel_and_level[:, :1] * (1 - kernel_and_level[:, 1:])

    for size, samples in ((4, 1), (5, 2)):
        images = probe(1, 3, 14, 11), probe(samples, 3, 14, 11)
        settings = (0.1, probe(1, 1, size, size).abs(), denoiser, "pnp", 1e3, 0.5, 3, size)
        expect_equal(original, replacement, *images, *settings, gradient=False)


def _data_solution_deblur(original: Callable[..., Tensor], module: Any) -> Callable[..., Tensor]:
    def data_solution_deblur(z: Tensor, x: Tensor, y: Tensor, alpha: float) -> Tensor:
        if not (_alike(z, x, y) and z.shape[-2:] == x.shape[-2:] == y.shape[-2:]):
            return original(z, x, y, alpha)
        x_hat = torch.fft.rfft2(x)
        power = (x_hat.real.square() + x_hat.imag.square()).sum(0, keepdim=True)
        numerator = x_hat.sum(0, keepdim=True).conj() * torch.fft.rfft2(y) + torch.fft.rfft2(alpha * z)
        return torch.fft.irfft2(numerator / (power + alpha), s=y.shape[-2:])

    return data_solution_deblur


def _check_data_solution(original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    expect_parameters(original, "z", "x", "y", "alpha")
    for samples, width in ((1, 9), (2, 8)):
        arguments = probe(1, 1, 12, width), probe(samples, 3, 12, width), probe(1, 3, 12, width), 2.0
        expect_equal(original, replacement, *arguments)


def _kernel_shift(original: Callable[..., Any], module: Any) -> Callable[..., Any]:
    def kernel_shift(kernel: Any, sf: Any) -> Any:
        if not (isinstance(kernel, np.ndarray) and kernel.ndim == 2 and kernel.dtype.kind == "f"):
            return original(kernel, sf)
        if min(kernel.shape) < 4 or kernel.sum() == 0:
            return original(kernel, sf)
        weights = kernel.astype(np.float64)
        sides = np.array(kernel.shape)
        grids = np.arange(sides[0])[:, None], np.arange(sides[1])
        centre = np.array([(weights * grid).sum() for grid in grids]) / kernel.sum()
        shift = sides // 2 + 0.5 * (np.array(sf) - sides % 2) - centre
        rows, columns = (_shift_matrix(int(n), float(s)) for n, s in zip(sides, shift, strict=True))
        return (rows @ weights @ columns.T).astype(kernel.dtype)

    return kernel_shift


def _check_kernel_shift(original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
    expect_parameters(original, "kernel", "sf")
    for shape in ((8, 8), (9, 7)):
        expect_equal(original, replacement, probe(*shape).abs().numpy(), 1, gradient=False)


def _shift_matrix(side: int, shift: float) -> np.ndarray:
    """(side, side): values to those `shift` before, of the cubic spline through them; 0 beyond the ends."""
    position = np.arange(side) - shift
    inside = (position >= 0) & (position <= side - 1)
    first = np.floor(position[inside]).astype(int) - 1
    coefficients = np.zeros((side, side))
    for tap in range(4):
        distance = np.abs(position[inside] - (first + tap))
        near = 2 / 3 - distance**2 * (2 - distance) / 2
        weight = np.where(distance < 1, near, (2 - distance).clip(min=0) ** 3 / 6)
        np.add.at(coefficients, (np.flatnonzero(inside), _mirrored(first + tap, side)), weight)
    return coefficients @ _spline_coefficients(side)


@cache
def _spline_coefficients(side: int) -> np.ndarray:
    """(side, side): values to the coefficients of the cubic B-splines that interpolate them, mirrored ends."""
    sampled = np.eye(side) * (4 / 6)
    for step in (-1, 1):
        np.add.at(sampled, (np.arange(side), _mirrored(np.arange(side) + step, side)), 1 / 6)
    return np.linalg.inv(sampled)


def _mirrored(index: np.ndarray, side: int) -> np.ndarray:
    """Indices reflected about the first and the last pixel."""
    index = np.abs(index)
    return np.where(index >= side, 2 * (side - 1) - index, index)
