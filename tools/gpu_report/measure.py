"""Times the operations between CUDA events and checks their results, in a program of its own that may crash.

python tools/gpu_report/measure.py measurements.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import latentdem_ext as ext
from latentdem_ext import reference

HALF = (torch.float16, torch.bfloat16)
ROUNDS = 50
FLUSHED_BYTES = 512 * 2**20  # more than any L2 cache holds
COPIED_BYTES = 2**30
Values = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Sizes:
    """Sides of images, kernels, latents and feature maps; channels of feature maps; images in a batch."""

    image: int = 512
    kernel: int = 64
    latent: int = 64
    map: int = 256
    channels: int = 128
    batches: tuple[int, ...] = (1, 8)


@dataclass(frozen=True)
class Case:
    """An operation and its arguments."""

    operation: str
    arguments: tuple[Any, ...]
    options: dict[str, Tensor]

    @property
    def dtype(self) -> torch.dtype:
        return self.arguments[0].dtype

    @property
    def shape(self) -> str:
        return " x ".join(map(str, self.arguments[0].shape))

    def public(self) -> Values:
        """Result of the public function, on the backend that it chooses."""
        return getattr(ext, self.operation)(*self.arguments, **self.options)

    def definition(self) -> Values:
        """Result of the reference."""
        return getattr(reference, self.operation)(*self.arguments, **self.options)

    def precise(self) -> Values:
        """Result of the reference in float64, or in float32 for half precision."""
        dtype = torch.float32 if self.dtype in HALF else torch.float64
        arguments = _precise(self.arguments, dtype)
        options = {name: _precise(value, dtype) for name, value in self.options.items()}
        return getattr(reference, self.operation)(*arguments, **options)


def cases(device: str, sizes: Sizes) -> Iterator[Case]:
    """Every operation at realistic sizes, in the data types that it is used in."""

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    for batch in sizes.batches:
        x, y = random(2, batch, 3, sizes.image, sizes.image).tanh()
        kernel = ext.project_kernel(random(batch, 1, sizes.kernel, sizes.kernel))
        weight = torch.full((batch,), 1e3, device=device)
        y_hat = torch.fft.rfft2(y)
        yield _case("blur_fidelity", x, kernel, y, y_hat=y_hat)
        yield _case("blur_proximal", x, kernel, y, torch.full((batch,), 0.01, device=device), y_hat=y_hat)
        yield _case("hqs_prepare", x[:, None], y, weight, sizes.kernel, y_hat=y_hat)
        factors = ext.hqs_prepare(x[:, None], y, weight, sizes.kernel)
        yield _case("hqs_kernel_update", kernel, factors)
        for dtype in (torch.float32, torch.float16):
            z_t, eps, noise = (random(batch, 4, sizes.latent, sizes.latent, dtype=dtype) for _ in range(3))
            now, before = (torch.full((batch,), value, device=device) for value in (0.5, 0.6))
            yield _case("dps_step", z_t, eps, now, before, gradient=noise, step_size=now)
            yield _case("renoise", z_t, eps, now, before, noise, now)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = random(1, sizes.channels, sizes.map, sizes.map, dtype=dtype).contiguous(
            memory_format=torch.channels_last
        )
        scale, shift = random(2, sizes.channels, dtype=dtype)
        yield _case("group_norm_silu", x, min(32, sizes.channels), scale, shift)
        weight = random(sizes.channels, sizes.channels, 3, 3) / (3 * sizes.channels**0.5)
        yield _case("upsample_conv", x, weight.to(dtype), shift)


def _case(operation: str, *arguments: Any, **options: Tensor) -> Case:
    return Case(operation, arguments, options)


def _precise(value: Any, dtype: torch.dtype) -> Any:
    """`value` in the precision of `dtype`; spectra stay complex."""
    if isinstance(value, tuple):
        converted = (_precise(element, dtype) for element in value)
        return type(value)(*converted) if hasattr(value, "_fields") else tuple(converted)
    if not isinstance(value, Tensor):
        return value
    return value.to(dtype.to_complex() if value.is_complex() else dtype)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values if isinstance(value, (Tensor, tuple)) for tensor in _tensors(value)]


def error_of(results: Values, expected: Values) -> float:
    """The largest ||result - expected|| / ||expected|| over all samples and results."""
    worst = 0.0
    for one, other in zip(_tensors(results), _tensors(expected), strict=True):
        for sample, exact in zip(one.double(), other.double(), strict=True):
            worst = max(worst, float((sample - exact).norm() / exact.norm().clamp(min=1e-30)))
    return worst


def measure(
    case: Case, clock: Callable[[Callable[[], Any]], dict[str, float]], compiled: bool
) -> list[dict[str, Any]]:
    """Measures the reference, the compiled reference and the chosen backend; returns a row for each.

    Raises:
        RuntimeError: the chosen backend is the reference, or its results are wrong.
    """
    expected = case.precise()
    allowed = 2 * error_of(case.definition(), expected) if case.dtype in HALF else 1e-5
    with ext.record_backends() as record:
        results = case.public()
    chosen = record.get(case.operation, ["reference"])[0]
    moved = (*_tensors((*case.arguments, *case.options.values())), *_tensors(results))
    least = sum(tensor.numel() * tensor.element_size() for tensor in moved)

    functions = {"reference": case.definition, chosen: case.public}
    if compiled:
        function = torch.compile(getattr(reference, case.operation), dynamic=False)
        functions["torch.compile(reference)"] = partial(function, *case.arguments, **case.options)
    rows = []
    for backend, function in functions.items():
        error = error_of(function(), expected)
        row = {
            "operation": case.operation,
            "shape": case.shape,
            "dtype": str(case.dtype)[6:],
            "backend": backend,
        }
        row |= clock(function)
        row |= {"error": error, "allowed": allowed, "gb_per_s": least / row["median_ms"] / 1e6}
        rows.append(row | {"to_reference": (rows[0] if rows else row)["median_ms"] / row["median_ms"]})
        if backend == chosen and not error <= allowed:
            raise RuntimeError(f"{case.operation} on {backend} is off by {error:.2e}, more than {allowed:.2e}")
    if chosen == "reference":
        raise RuntimeError(f"{case.operation} ran on its reference for {case.dtype}")
    return rows


def cuda_clock(function: Callable[[], Any], rounds: int = ROUNDS) -> dict[str, float]:
    """Median and interquartile range of the time between CUDA events, and the peak of allocated memory."""
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    peak = torch.cuda.max_memory_allocated() - before
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for start, end in pairs:
        flushed.zero_()  # takes longer than a launch: the processor runs ahead of the GPU
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    times = [start.elapsed_time(end) for start, end in pairs]
    low, median, high = statistics.quantiles(times, n=4)
    return {"median_ms": median, "quartiles_ms": high - low, "rounds": rounds, "peak_mb": peak / 1e6}


def copy_speed() -> float:
    """Bandwidth in GB/s, read and written, of a copy within the memory of the GPU."""
    source = torch.ones(COPIED_BYTES, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / cuda_clock(lambda: target.copy_(source))["median_ms"] / 1e6


def main() -> int:
    """Measures every case, even after one that failed; returns 0 where all succeeded, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    copy, rows, failures = copy_speed(), [], 0
    with torch.no_grad():
        for case in cases("cuda", Sizes()):
            try:
                measured = measure(case, cuda_clock, compiled=True)
            except Exception as error:
                failures += 1
                print(f"{case.operation}, {case.shape}, {case.dtype}: {error}", file=sys.stderr)
                continue
            rows += [row | {"of_copy": row["gb_per_s"] / copy} for row in measured]
            out.write_text(json.dumps({"copy_gb_per_s": copy, "rows": rows}))
    print(f"{len(rows)} rows, {failures} cases failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
