"""The M-step: half-quadratic splitting updates of a blur kernel on a padded grid of its own size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _backends, _checks, _compiled, _native, _spectra, reference
from ._registry import Implementation, Operation
from .reference import HQSFactors

MAX_ITERATIONS = 1000  # of one native call, which nothing can interrupt
_SHARED_SIDES = (32, 64, 128)  # of the padded grids that fit in the shared memory of a block


def hqs_prepare(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    kernel_size: int,
    *,
    per_channel: bool = False,
    y_hat: Tensor | None = None,
) -> HQSFactors:
    """Everything that `hqs_kernel_update` needs of the images: see `reference.hqs_prepare`.

    x (B, S, C, H, W) holds S posterior samples of each image, y (B, C, H, W), weight (B,) > 0 on the scale of
    sum |F x|^2 (the paper's delta sigma^2, delta = 5e6). Not differentiable.

    Raises:
        TypeError: an argument is not a float32 or float64 tensor, the dtypes differ, or `kernel_size` is not an
            integer.
        ValueError: shapes or devices do not go together, K is not between 1 and min(H, W), or an argument
            requires a gradient.
    """
    _checks.tensor("y", y, _checks.FFT_DTYPES, 4)
    _checks.tensor("x", x, _checks.FFT_DTYPES, 5)
    _checks.companion("x", x, "y", y, (y.shape[0], x.shape[1], *y.shape[1:]))
    if x.shape[1] < 1 or x.shape[2] < 1:
        raise ValueError(f"x must hold at least one sample and one channel, its shape is {tuple(x.shape)}")
    _checks.per_sample("weight", weight, "y", y)
    _checks.integer("kernel_size", kernel_size, 1)
    _checks.kernel_size("kernel_size", kernel_size, y.shape[-2], y.shape[-1])
    _checks.flag("per_channel", per_channel)
    if y_hat is not None:
        _checks.spectrum("y_hat", y_hat, "y", y)
    _checks.no_gradient("hqs_prepare", x=x, y=y, weight=weight, y_hat=y_hat)
    return HQSFactors(*_prepare.run(x, y, weight, kernel_size, per_channel, y_hat))


def hqs_kernel_update(
    kernel: Tensor, factors: HQSFactors, *, project: bool = True, iterations: int = 1
) -> Tensor:
    """Updates of a kernel (B, 1, K, K), by default projected: see `reference.hqs_kernel_update`.

    The `iterations` are one native call, in which the kernel stays in the processor's cache. Not
    differentiable.

    Raises:
        TypeError: `kernel` is not a float32 or float64 tensor, `factors` not what `hqs_prepare` returns, their
            dtypes differ, or `iterations` is not an integer.
        ValueError: `kernel` is not of the shape or on the device of `factors.data_term`, `iterations` is
            not between 1 and 1000, or an argument requires a gradient.
    """
    data_term, gains = _checks.factors("hqs_kernel_update", kernel, factors)
    _checks.flag("project", project)
    _checks.integer("iterations", iterations, 1, MAX_ITERATIONS)
    result: Tensor = _update.run(kernel, data_term, gains, project, iterations)
    return result


_prepare_on_grid = _compiled.Program(reference.hqs_prepare_on_grid)


def _prepare_compiled(
    x: Tensor, y: Tensor, weight: Tensor, kernel_size: int, per_channel: bool, y_hat: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The padded grid is found outside: it would be compiled again for every size of a kernel."""
    side = reference.padded_side(kernel_size, x.device)
    result: HQSFactors = _prepare_on_grid(x, y, weight, kernel_size, per_channel, y_hat, side)
    return result


def _prepare_cpp(
    x: Tensor, y: Tensor, weight: Tensor, kernel_size: int, per_channel: bool, y_hat: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Only the lags that a kernel can reach are transformed back."""
    batch, samples, channels, height, width = x.shape
    rows = _spectra.transform_rows(x)
    lags = rows.new_empty((batch, 2, 2 * kernel_size - 1, rows.shape[-1]))
    _native.call_cpp(
        "hqs_prepare",
        x=rows,
        y=_spectra.transformed_measurement(y, y_hat),
        weight=_native.plain(weight.double()),
        lags=lags,
        batch=batch,
        samples=samples,
        channels=channels,
        height=height,
        columns=rows.shape[-1],
        size=kernel_size,
        per_channel=per_channel,
        whole_y=y_hat is not None,
    )
    values = torch.fft.irfft(lags, n=width)
    before, after = values[..., width - kernel_size + 1 :], values[..., :kernel_size]
    solution, response = torch.cat((before, after), dim=-1).split(1, dim=1)
    begin = kernel_size - 1 - kernel_size // 2
    support = slice(begin, begin + kernel_size)
    side, origin = reference.padded_side(kernel_size, x.device), kernel_size - 1
    padded = _spectra.origin_first(_spectra.origin_first(response, origin, side, dim=-2), origin, side, dim=-1)
    return solution[..., support, support], torch.fft.rfft2(padded).real


def _prepare_cuda(
    x: Tensor, y: Tensor, weight: Tensor, kernel_size: int, per_channel: bool, y_hat: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The mean over channels is taken before the transform back, not after."""
    y_hat = _spectra.transform(y) if y_hat is None else _native.plain(y_hat)
    weight = _native.plain(weight.to(torch.float32))
    solve = _solve_lags if x.shape[-2] in _spectra.COLUMN_HEIGHTS else _solve_everywhere
    solution, response = solve(x, y_hat, weight, kernel_size, per_channel)
    side = reference.padded_side(kernel_size, x.device)
    data_term = y.new_empty((len(y), 1, kernel_size, kernel_size))
    padded = y.new_empty((len(y), 1, side, side))
    _native.call_cuda(
        "hqs_crop",
        solution=solution,
        response=response,
        data_term=data_term,
        padded=padded,
        batch=len(y),
        height=solution.shape[-2],
        width=solution.shape[-1],
        size=kernel_size,
        side=side,
        parts=_spectra.parts(side * side),
    )
    return data_term, torch.fft.rfft2(padded).real


def _solve_lags(
    x: Tensor, y_hat: Tensor, weight: Tensor, kernel_size: int, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """Solution and response (B, 2K - 1, W) in the rows that a kernel can reach: those below 0 come last.

    A kernel does the columns with everything between their transforms; only these rows are transformed back.
    """
    batch, samples, channels, height, width = x.shape
    rows = _spectra.transform_rows(_native.plain(x))
    lags = rows.new_empty((2, batch, 2 * kernel_size - 1, rows.shape[-1]))
    _native.call_cuda(
        "hqs_lags",
        rows=rows,
        y_hat=y_hat,
        weight=weight,
        lags=lags,
        batch=batch,
        samples=samples,
        channels=channels,
        height=height,
        width=width,
        size=kernel_size,
        per_channel=per_channel,
    )
    return _apart(lags, lambda half: torch.fft.irfft(half, n=width, norm="forward"))


def _solve_everywhere(
    x: Tensor, y_hat: Tensor, weight: Tensor, kernel_size: int, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """Solution and response (B, H, W), for any height."""
    batch, samples, channels, height, width = x.shape
    x_hat = _spectra.transform(x)
    spectra = x_hat.new_empty((2, batch, *x_hat.shape[-2:]))
    points = spectra[0, 0].numel()
    _native.call_cuda(
        "hqs_solve",
        x_hat=x_hat,
        y_hat=y_hat,
        weight=weight,
        spectra=spectra,
        batch=batch,
        samples=samples,
        channels=channels,
        points=points,
        parts=_spectra.parts(points),
        per_channel=per_channel,
    )
    return _apart(spectra, lambda half: torch.fft.irfft2(half, s=(height, width)))


def _apart(spectra: Tensor, transform: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Both halves of the spectra, transformed one after the other.

    cuFFT may take two real images for one complex image, and responses are far smaller than solutions.
    """
    return _native.plain(transform(spectra[0])), _native.plain(transform(spectra[1]))


def _fake_prepare(
    x: Tensor, y: Tensor, weight: Tensor, kernel_size: int, per_channel: bool, y_hat: Tensor | None
) -> tuple[Tensor, Tensor]:
    side = reference.padded_side(kernel_size, x.device)
    return (
        y.new_empty(y.shape[0], 1, kernel_size, kernel_size),
        y.new_empty(y.shape[0], 1, side, side // 2 + 1),
    )


def _update_reference(
    kernel: Tensor, data_term: Tensor, filter: Tensor, project: bool, iterations: int
) -> Tensor:
    return reference.hqs_kernel_update(kernel, HQSFactors(data_term, filter), project, iterations)


def _update_cpp(kernel: Tensor, data_term: Tensor, filter: Tensor, project: bool, iterations: int) -> Tensor:
    updated = torch.empty_like(kernel, memory_format=torch.contiguous_format)
    arrays = {"kernel": kernel, "data_term": data_term, "filter": filter}
    _native.call_cpp(
        "hqs_update",
        **_native.plain_arguments(arrays),
        updated=updated,
        batch=kernel.shape[0],
        size=kernel.shape[-1],
        side=filter.shape[-2],
        iterations=iterations,
        project=project,
    )
    return updated


def _update_cpp_refusal(name: str, kernel: Tensor, data_term: Tensor, filter: Tensor, *_: Any) -> str:
    refusal, side = _native.cpp_refusal(name, kernel), filter.shape[-2]
    if not refusal and _backends.cpu is not None and (side % 2 or not _backends.cpu.has_fft(side // 2)):
        return f"factors.filter has {side} points a side: odd, or with a prime factor above 13"
    return refusal


def _update_cuda(kernel: Tensor, data_term: Tensor, filter: Tensor, project: bool, iterations: int) -> Tensor:
    """One launch for all iterations where the padded grid fits in shared memory."""
    size, side = kernel.shape[-1], filter.shape[-2]
    kernel, data_term, filter = (_native.plain(tensor) for tensor in (kernel, data_term, filter))
    updated = torch.empty_like(kernel)
    results = {"data_term": data_term, "updated": updated}
    numbers = {"batch": kernel.shape[0], "size": size, "side": side, "project": project}
    if fits_in_shared_memory(size, side):
        _native.call_cuda(
            "hqs_kernel_update", kernel=kernel, filter=filter, iterations=iterations, **results, **numbers
        )
        return updated
    for _ in range(iterations):
        spectrum = torch.fft.rfft2(kernel, s=(side, side))
        response = _native.plain(torch.fft.irfft2(spectrum * filter, s=(side, side)))
        _native.call_cuda("hqs_finish", response=response, **results, **numbers)
        kernel = updated
    return updated


def fits_in_shared_memory(size: int, side: int) -> bool:
    """Whether a block of the CUDA kernels can update a kernel of `size` on a grid of `side` points a side."""
    return side in _SHARED_SIDES and 2 * size <= side


def _fake_update(kernel: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(kernel, memory_format=torch.contiguous_format)


_prepare = Operation(
    "hqs_prepare",
    "(Tensor x, Tensor y, Tensor weight, SymInt kernel_size, bool per_channel, Tensor? y_hat)"
    " -> (Tensor, Tensor)",
    reference=reference.hqs_prepare,
    fake=_fake_prepare,
    backends={
        "compiled": Implementation(_prepare_compiled, _compiled.refusal),
        "cuda": Implementation(_prepare_cuda, _native.cuda_refusal),
        "cpp": Implementation(_prepare_cpp, _spectra.cpp_refusal),
    },
)
_update = Operation(
    "hqs_kernel_update",
    "(Tensor kernel, Tensor data_term, Tensor filter, bool project, SymInt iterations) -> Tensor",
    reference=_update_reference,
    fake=_fake_update,
    backends={
        "cuda": Implementation(_update_cuda, _native.cuda_refusal),
        "cpp": Implementation(_update_cpp, _update_cpp_refusal),
    },
)
