"""Data fidelity of a blurred image, and the closed-form proximal step that minimises it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks, _compiled, _native, _spectra, reference
from ._blur import blur, blur_adjoint, kernel_gradient
from ._registry import Implementation, Operation
from .reference import Fidelity


def blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, *, y_hat: Tensor | None = None) -> Fidelity:
    """||y - k*x||^2 (B,), its gradient in x and the gluing target: see `reference.blur_fidelity`.

    A caller that uses the same `y` at every step computes `y_hat = torch.fft.rfft2(y)` once and passes it.
    All results are differentiable in x, kernel and y; for the norm and x that costs nothing.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, or `y_hat`
            requires a gradient.
    """
    _check("blur_fidelity", "x", x, kernel, y, y_hat)
    return Fidelity(*_fidelity.run(x, kernel, y, y_hat))


def blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, *, y_hat: Tensor | None = None) -> Tensor:
    """argmin_x ||y - k*x||^2 + rho ||x - x0||^2 with rho (B,) > 0: see `reference.blur_proximal`.

    A caller that uses the same `y` at every step computes `y_hat = torch.fft.rfft2(y)` once and passes it.
    Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, or the dtypes differ.
        ValueError: shapes or devices do not go together, the kernel is larger than the image, or an argument
            requires a gradient.
    """
    _check("blur_proximal", "x0", x0, kernel, y, y_hat)
    _checks.per_sample("rho", rho, "x0", x0)
    _checks.no_gradient("blur_proximal", x0=x0, kernel=kernel, y=y, rho=rho)
    result: Tensor = _proximal.run(x0, kernel, y, rho, y_hat)
    return result


def _check(operation: str, name: str, x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> None:
    _checks.blur_arguments(name, x, kernel)
    _checks.companion("y", y, name, x)
    if y_hat is not None:
        _checks.spectrum("y_hat", y_hat, "y", y)
        _checks.no_gradient(operation, y_hat=y_hat)


def _fidelity_cpp(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    height, width = x.shape[-2:]
    x, rows = _native.plain(x), _spectra.transform_rows(x)
    norm2 = torch.empty(x.shape[0], dtype=torch.float64)
    _spectra.blur_rows(
        rows,
        kernel,
        width,
        y=_spectra.transformed_measurement(y, y_hat),
        whole_y=y_hat is not None,
        norm2=norm2,
        even_width=width % 2 == 0,
    )
    correction = torch.fft.irfft(rows, n=width).contiguous()
    glued = torch.empty_like(x)
    _native.call_cpp("finish_fidelity", x=x, correction=correction, glued=glued, count=x.numel())
    return (norm2 / (height * width)).to(x.dtype), correction, glued


def _fidelity_cuda(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    x = _native.plain(x)
    gradient, norm2 = _correction_cuda(x, kernel, y, y_hat, rho=None)
    glued = torch.empty_like(gradient)
    _native.call_cuda("blur_glue", correction=gradient, x=x, glued=glued, count=x.numel())
    return norm2.sum(dim=1), gradient, glued


def _fake_fidelity(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    image = torch.empty_like(x, memory_format=torch.contiguous_format)
    return x.new_empty(x.shape[0]), image, torch.empty_like(image)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, kernel, y, _ = inputs
    ctx.save_for_backward(x, kernel, y, output[1])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, by_norm2: Tensor | None, by_gradient: Tensor | None, by_glued: Tensor | None
) -> tuple[Tensor | None, ...]:
    """With A the blur, r = y - A x, c = A^T r: norm2 = <r, r>, gradient = -2 c, glued = x + c."""
    x, kernel, y, gradient = ctx.saved_tensors
    by_x, by_kernel, by_y, _ = ctx.needs_input_grad
    weight = None if by_norm2 is None else by_norm2[:, None, None, None]
    by_correction = None if by_gradient is None else -2 * by_gradient
    if by_glued is not None:
        by_correction = by_glued if by_correction is None else by_correction + by_glued
    if by_correction is None and not by_kernel and not by_y:
        return None if weight is None else weight * gradient, None, None, None

    residual = y - blur(x, kernel)
    by_residual = torch.zeros_like(x) if by_correction is None else blur(by_correction, kernel)
    if weight is not None:
        by_residual = by_residual + 2 * weight * residual
    results: list[Tensor | None] = [None] * 4
    if by_x:
        through_residual = -blur_adjoint(by_residual, kernel)
        results[0] = through_residual if by_glued is None else through_residual + by_glued
    if by_kernel:
        size = kernel.shape[-1]
        gradient_of_kernel = -kernel_gradient(x, by_residual, size)
        if by_correction is not None:
            adjoint_part = kernel_gradient(by_correction, residual, size)
            gradient_of_kernel = gradient_of_kernel + adjoint_part
        results[1] = gradient_of_kernel
    if by_y:
        results[2] = by_residual
    return tuple(results)


def _proximal_cpp(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None) -> Tensor:
    rows = _spectra.transform_rows(x0)
    _spectra.blur_rows(
        rows,
        kernel,
        x0.shape[-1],
        y=_spectra.transformed_measurement(y, y_hat),
        whole_y=y_hat is not None,
        rho=_native.plain(rho.double()),
    )
    return torch.fft.irfft(rows, n=x0.shape[-1]).add_(x0)


def _proximal_cuda(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None) -> Tensor:
    rho = _native.plain(rho.to(torch.float32))
    return _correction_cuda(x0, kernel, y, y_hat, rho)[0].add_(x0)


def _correction_cuda(
    x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None, rho: Tensor | None
) -> tuple[Tensor, Tensor]:
    """F^-1[conj(F k) (F y - F k F x)] and (B, parts) numbers that add up to ||y - k*x||^2.

    With rho the former is divided by |F k|^2 + rho in the Fourier domain, and there are no parts.
    """
    y_hat = _spectra.transform(y) if y_hat is None else _native.plain(y_hat)
    correct = _correct_columns if x.shape[-2] in _spectra.COLUMN_HEIGHTS else _correct_spectrum
    return correct(x, kernel, y_hat, rho)


def _correct_columns(x: Tensor, kernel: Tensor, y_hat: Tensor, rho: Tensor | None) -> tuple[Tensor, Tensor]:
    """A kernel does the columns with everything between their transforms, PyTorch (cuFFT) the rows."""
    (batch, channels, height, width), size = x.shape, kernel.shape[-1]
    rows = _spectra.transform_rows(_native.plain(x))
    parts = _spectra.column_blocks(rows.shape[-1])
    norm2 = x.new_empty((batch, channels * parts if rho is None else 0))
    _native.call_cuda(
        "blur_columns",
        rows=rows,
        kernel=_native.plain(kernel),
        y_hat=y_hat,
        rho=rho,
        norm2=norm2,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        size=size,
        parts=parts,
    )
    # The kernel has scaled: cuFFT would have to pass over the image once more.
    return _native.plain(torch.fft.irfft(rows, n=width, norm="forward")), norm2


def _correct_spectrum(x: Tensor, kernel: Tensor, y_hat: Tensor, rho: Tensor | None) -> tuple[Tensor, Tensor]:
    """For any height: cuFFT transforms the images."""
    height, width = x.shape[-2:]
    otf = _native.plain(reference.kernel_to_otf(kernel, (height, width)))
    spectrum, parts = _spectra.transform(x), _spectra.parts(otf[0].numel())
    norm2 = x.new_empty((x.shape[0], parts if rho is None else 0))
    _native.call_cuda(
        "blur_residual",
        spectrum=spectrum,
        y_hat=y_hat,
        otf=otf,
        rho=rho,
        norm2=norm2,
        batch=x.shape[0],
        channels=x.shape[1],
        height=height,
        width=width,
        parts=parts,
    )
    return _native.plain(torch.fft.irfft2(spectrum, s=(height, width))), norm2


def _fake_proximal(x0: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x0, memory_format=torch.contiguous_format)


_fidelity = Operation(
    "blur_fidelity",
    "(Tensor x, Tensor kernel, Tensor y, Tensor? y_hat) -> (Tensor, Tensor, Tensor)",
    reference=reference.blur_fidelity,
    fake=_fake_fidelity,
    backends={
        "compiled": Implementation(_compiled.Program(reference.blur_fidelity), _compiled.refusal),
        "cuda": Implementation(_fidelity_cuda, _native.cuda_refusal),
        "cpp": Implementation(_fidelity_cpp, _spectra.cpp_refusal),
    },
    save=_save,
    backward=_backward,
)
_proximal = Operation(
    "blur_proximal",
    "(Tensor x0, Tensor kernel, Tensor y, Tensor rho, Tensor? y_hat) -> Tensor",
    reference=reference.blur_proximal,
    fake=_fake_proximal,
    backends={
        "cuda": Implementation(_proximal_cuda, _native.cuda_refusal),
        "cpp": Implementation(_proximal_cpp, _spectra.cpp_refusal),
    },
)
