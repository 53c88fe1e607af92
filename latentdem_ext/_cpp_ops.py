"""The spectral operations on float32 tensors in CPU memory.

The functions have the names, arguments and results of those in `reference`. PyTorch (MKL) transforms the rows
of the images; the compiled module does the columns and everything between their two transforms, in blocks that
stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import _backends, reference
from .reference import Fidelity, HQSFactors


def module() -> ModuleType:
    """The compiled module; `_backends.choose` has made sure that it is there."""
    assert _backends.cpu is not None
    return _backends.cpu


def plain(tensor: Tensor) -> Tensor:
    """`tensor` as its address stands for it: contiguous, no conjugation or negation put off."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def tensor_refusal(name: str, tensor: Tensor) -> str:
    """Why the compiled module does not take the tensor, "" if it does."""
    if tensor.device.type != "cpu":
        return f"{name} is on {tensor.device}, not in CPU memory"
    if tensor.dtype != torch.float32:
        return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not float32"
    return ""


def refusal(operation: str, arguments: Mapping[str, Any]) -> str:
    """Why an operation of this module does not take its arguments, "" if it does."""
    name, tensor = next(iter(arguments.items()))
    if _backends.cpu is None or tensor_refusal(name, tensor):
        return tensor_refusal(name, tensor)
    if operation == "hqs_kernel_update":
        side = arguments["factors"].filter.shape[-2]
        if side % 2 or not _backends.cpu.has_fft(side // 2):
            return f"factors.filter has {side} points a side: odd, or with a prime factor above 13"
    elif not _backends.cpu.has_fft(tensor.shape[-2]):
        return f"{name} has {tensor.shape[-2]} rows: a prime factor is above 13"
    return ""


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """See `reference.blur`."""
    rows = _transform_rows(x)
    _run(rows, kernel, x.shape[-1])
    return torch.fft.irfft(rows, n=x.shape[-1])


def blur_adjoint(y: Tensor, kernel: Tensor) -> Tensor:
    """See `reference.blur_adjoint`."""
    rows = _transform_rows(y)
    _run(rows, kernel, y.shape[-1], adjoint=True)
    return torch.fft.irfft(rows, n=y.shape[-1])


def blur_fidelity(x: Tensor, kernel: Tensor, y: Tensor, y_hat: Tensor | None = None) -> Fidelity:
    """See `reference.blur_fidelity`."""
    height, width = x.shape[-2:]
    x, rows, measured = plain(x), _transform_rows(x), _measurement(y, y_hat)
    norm2 = torch.empty(x.shape[0], dtype=torch.float64)
    _run(
        rows,
        kernel,
        width,
        y=measured.data_ptr(),
        whole_y=y_hat is not None,
        norm2=norm2.data_ptr(),
        even_width=width % 2 == 0,
    )
    correction = torch.fft.irfft(rows, n=width).contiguous()
    glued = torch.empty_like(x)
    module().finish_fidelity(
        x=x.data_ptr(),
        correction=correction.data_ptr(),
        glued=glued.data_ptr(),
        count=x.numel(),
        threads=torch.get_num_threads(),
    )
    return Fidelity((norm2 / (height * width)).to(x.dtype), correction, glued)


def blur_proximal(x0: Tensor, kernel: Tensor, y: Tensor, rho: Tensor, y_hat: Tensor | None = None) -> Tensor:
    """See `reference.blur_proximal`."""
    rows, measured, rho = _transform_rows(x0), _measurement(y, y_hat), plain(rho.double())
    _run(
        rows,
        kernel,
        x0.shape[-1],
        y=measured.data_ptr(),
        whole_y=y_hat is not None,
        rho=rho.data_ptr(),
    )
    return torch.fft.irfft(rows, n=x0.shape[-1]).add_(x0)


def hqs_prepare(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    per_channel: bool = False,
    y_hat: Tensor | None = None,
) -> HQSFactors:
    """See `reference.hqs_prepare`. Only what the lags need is transformed back."""
    batch, samples, channels, height, width = x.shape
    rows, measured, weight = _transform_rows(x), _measurement(y, y_hat), plain(weight.double())
    lags = rows.new_empty((batch, 2, 2 * kernel_size - 1, rows.shape[-1]))
    module().hqs_prepare(
        x=rows.data_ptr(),
        y=measured.data_ptr(),
        weight=weight.data_ptr(),
        lags=lags.data_ptr(),
        batch=batch,
        samples=samples,
        channels=channels,
        height=height,
        columns=rows.shape[-1],
        size=kernel_size,
        per_channel=per_channel,
        whole_y=y_hat is not None,
        threads=torch.get_num_threads(),
    )
    values = torch.fft.irfft(lags, n=width)
    before, after = values[..., width - kernel_size + 1 :], values[..., :kernel_size]
    solution, response = torch.cat((before, after), dim=-1).split(1, dim=1)
    begin = kernel_size - 1 - kernel_size // 2
    support = slice(begin, begin + kernel_size)
    side = reference.lattice_side(kernel_size, x.device)
    small = _origin_first(_origin_first(response, kernel_size - 1, side, dim=-2), kernel_size - 1, side, dim=-1)
    return HQSFactors(solution[..., support, support].contiguous(), torch.fft.rfft2(small).real.contiguous())


def hqs_kernel_update(kernel: Tensor, factors: HQSFactors, project: bool = True, iterations: int = 1) -> Tensor:
    """See `reference.hqs_kernel_update`."""
    kernel, data_term, gains = plain(kernel), plain(factors.data_term), plain(factors.filter)
    updated = torch.empty_like(kernel)
    module().hqs_update(
        kernel=kernel.data_ptr(),
        data_term=data_term.data_ptr(),
        filter=gains.data_ptr(),
        updated=updated.data_ptr(),
        batch=kernel.shape[0],
        size=kernel.shape[-1],
        side=gains.shape[-2],
        iterations=iterations,
        project=project,
        threads=torch.get_num_threads(),
    )
    return updated


def _transform_rows(image: Tensor) -> Tensor:
    return torch.fft.rfft(image.contiguous()).contiguous()


def _measurement(y: Tensor, y_hat: Tensor | None) -> Tensor:
    """The transforms of the rows of y, or the whole one that the caller has kept."""
    return _transform_rows(y) if y_hat is None else plain(y_hat)


def _run(rows: Tensor, kernel: Tensor, width: int, **options: Any) -> None:
    """The native pass over transformed rows (B, C, H, W // 2 + 1), in place."""
    batch, channels, height, columns = rows.shape
    kernel_rows = _transform_rows(_origin_first(kernel, kernel.shape[-1] // 2, width, dim=-1))
    module().blur(
        x=rows.data_ptr(),
        kernel=kernel_rows.data_ptr(),
        batch=batch,
        channels=channels,
        height=height,
        columns=columns,
        size=kernel.shape[-1],
        threads=torch.get_num_threads(),
        **options,
    )


def _origin_first(values: Tensor, origin: int, length: int, dim: int) -> Tensor:
    """`values` along `dim` from `origin` on, zeros up to `length`, then those before the origin."""
    after = values.shape[dim] - origin
    shape = list(values.shape)
    shape[dim] = length
    placed = values.new_zeros(shape)
    placed.narrow(dim, 0, after).copy_(values.narrow(dim, origin, after))
    placed.narrow(dim, length - origin, origin).copy_(values.narrow(dim, 0, origin))
    return placed
