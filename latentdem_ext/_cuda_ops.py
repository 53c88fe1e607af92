"""The operations of the Fourier domain on CUDA tensors: torch.fft for images, compiled kernels for the rest.

The functions are those of the same names in `reference`. Their arguments are checked, `refusal` has nothing
against them, and none takes part in autograd. All work goes to the current stream of the device and
nothing waits for it, so the updates of a kernel can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import _backends, reference
from .reference import Fidelity, HQSFactors, lattice_side

_SHARED_LATTICES = (32, 64, 128)  # points a side of those that fit in the shared memory of a block
_THREADS = 256  # numbers a block of the element-wise kernels handles at a time
_MAX_PARTS = 1024  # blocks for one image
_MAX_POINTS = 2**30


def refusal(operation: str, arguments: Mapping[str, Any]) -> str:
    """Why an operation of this module does not take its arguments, the first one above all ("" if it does)."""
    name, tensor = next(iter(arguments.items()))
    if tensor.device.type != "cuda":
        return f"{name} is on {tensor.device}, not on a CUDA device"
    if tensor.dtype != torch.float32:
        return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not float32"
    if tensor.shape[-2] * tensor.shape[-1] > _MAX_POINTS:
        return f"{name} has more than {_MAX_POINTS} points, more than {operation} takes"
    return _refusal_of_device(tensor.device)


@cache
def _refusal_of_device(device: torch.device) -> str:
    if _backends.cuda is None:
        return ""  # `backends()` says so
    major, minor = torch.cuda.get_device_capability(device)
    oldest = _backends.cuda.oldest_architecture
    if 10 * major + minor >= oldest:
        return ""
    return f"{device} has compute capability {major}.{minor}, the module was built for {oldest / 10} and newer"


def hqs_kernel_update(kernel: Tensor, factors: HQSFactors, project: bool = True, iterations: int = 1) -> Tensor:
    """See `reference.hqs_kernel_update`; one launch an iteration where the lattice fits in shared memory."""
    size, side = kernel.shape[-1], factors.filter.shape[-2]
    kernel, data_term, gain = _dense(kernel), _dense(factors.data_term), _dense(factors.filter)
    numbers = {"batch": kernel.shape[0], "size": size, "side": side, "project": project}
    for _ in range(iterations):
        updated = torch.empty_like(kernel)
        if side in _SHARED_LATTICES and 2 * size <= side:
            arrays = {"kernel": kernel, "data_term": data_term, "filter": gain, "updated": updated}
            _call("hqs_kernel_update", **arrays, **numbers)
        elif kernel.numel():
            spectrum = torch.fft.rfft2(kernel, s=(side, side))
            response = _dense(torch.fft.irfft2(spectrum * gain, s=(side, side)))
            _call("hqs_finish", response=response, data_term=data_term, updated=updated, **numbers)
        kernel = updated
    return kernel


def project_kernel(kernel: Tensor) -> Tensor:
    """See `reference.project_kernel`."""
    kernel = _dense(kernel)
    batch, _, size, _ = kernel.shape
    updated = torch.empty_like(kernel)
    _call(
        "hqs_finish",
        response=kernel,
        data_term=None,
        updated=updated,
        batch=batch,
        size=size,
        side=size,
        project=True,
    )
    return updated


def hqs_prepare(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    per_channel: bool = False,
    y_hat: Tensor | None = None,
) -> HQSFactors:
    """See `reference.hqs_prepare`. The mean over channels is taken before the transform back, not after."""
    if x.numel() == 0:
        return reference.hqs_prepare(x, y, weight, kernel_size, per_channel, y_hat)
    batch, samples, channels, height, width = x.shape
    x_hat, y_hat = _transform(x), _transform(y) if y_hat is None else _dense(y_hat)
    weight = _dense(weight.to(torch.float32))
    spectra = x_hat.new_empty((2, batch, *x_hat.shape[-2:]))
    points = spectra[0, 0].numel()
    _call(
        "hqs_solve",
        x_hat=x_hat,
        y_hat=y_hat,
        weight=weight,
        spectra=spectra,
        batch=batch,
        samples=samples,
        channels=channels,
        points=points,
        parts=_parts(points),
        per_channel=per_channel,
    )
    # Apart: cuFFT may take two real images for one complex one, and responses are far smaller than solutions.
    solution, response = (_dense(torch.fft.irfft2(each, s=(height, width))) for each in spectra)
    side = lattice_side(kernel_size, x.device)
    data_term = y.new_empty((batch, 1, kernel_size, kernel_size))
    lattice = y.new_empty((batch, 1, side, side))
    _call(
        "hqs_crop",
        solution=solution,
        response=response,
        data_term=data_term,
        lattice=lattice,
        batch=batch,
        height=height,
        width=width,
        size=kernel_size,
        side=side,
        parts=_parts(side * side),
    )
    return HQSFactors(data_term, torch.fft.rfft2(lattice).real.contiguous())


def blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None = None) -> Fidelity:
    """See `reference.blur_fidelity`."""
    if x.numel() == 0:
        return reference.blur_fidelity(x, kernel, y, y_hat)
    x = _dense(x)
    norm2 = x.new_empty((x.shape[0], _parts(x.shape[-2] * (x.shape[-1] // 2 + 1))))
    gradient = _residual(x, kernel, y, y_hat, rho=None, norm2=norm2)
    glued = torch.empty_like(gradient)
    _call("blur_glue", correction=gradient, x=x, glued=glued, count=x.numel())
    return Fidelity(norm2.sum(dim=1), gradient, glued)


def blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None = None) -> Tensor:
    """See `reference.blur_proximal`."""
    if x0.numel() == 0:
        return reference.blur_proximal(x0, kernel, y, rho, y_hat)
    return _residual(x0, kernel, y, y_hat, rho=_dense(rho.to(torch.float32)), norm2=None).add_(x0)


def _residual(
    x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None, rho: Tensor | None, norm2: Tensor | None
) -> Tensor:
    """F^-1[conj(F k) (F y - F k F x)], with rho divided by |F k|^2 + rho; norm2 receives parts of the norm."""
    height, width = x.shape[-2:]
    otf = _dense(reference.kernel_to_otf(kernel, (height, width)))
    y_hat = _transform(y) if y_hat is None else _dense(y_hat)
    spectrum = _transform(x)
    _call(
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
        parts=_parts(otf[0].numel()),
    )
    return _dense(torch.fft.irfft2(spectrum, s=(height, width)))


def _dense(tensor: Tensor) -> Tensor:
    """The numbers of `tensor` as they stand in memory, without lazy conjugation or negation."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def _transform(image: Tensor) -> Tensor:
    return _dense(torch.fft.rfft2(image))


def _parts(points: int) -> int:
    return min(-(-points // _THREADS), _MAX_PARTS)


def _place(device: torch.device) -> dict[str, int | None]:
    return {"device": device.index, "stream": torch.cuda.current_stream(device).cuda_stream}


def _call(operation: str, **arguments: Tensor | int | None) -> None:
    """Launch an operation of `_cuda` on the device of its tensors; the caller's locals keep them alive."""
    device = next(value.device for value in arguments.values() if isinstance(value, Tensor))
    numbers = {
        name: value.data_ptr() if isinstance(value, Tensor) else 0 if value is None else value
        for name, value in arguments.items()
    }
    getattr(_backends.cuda, operation)(**numbers, **_place(device))
