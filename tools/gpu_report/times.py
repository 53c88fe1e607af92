"""Times every operation on the shapes of real runs: each backend, or with --compiled the compiled reference.

python -m gpu_report.times results.jsonl [--compiled] [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from latentdem_ext import reference

from .cases import COMPILED, WAITING, Case, Maker, error_of, tensors
from .clocks import device_time, host_time
from .rows import for_each

NOT_COMPILED = (*WAITING, "hqs_m_step")  # whose hundred convolutions take too long to compile
ROTATED_BYTES = 256 * 2**20  # of all inputs together, more than any cache holds
MOST_INPUTS = 32  # of small arrays, which stay in the cache in a real run too
# Image side and kernel size, iterations of an M-step, side of latents, channels and side of the feature maps of
# the autoencoder of Stable Diffusion at 512 x 512 before norms and before upsampling.
REAL: dict[str, Any] = {
    "image": (512, 64),
    "iterations": 20,
    "latent": 64,
    "norms": [(128, 256), (512, 64), (256, 256), (128, 512)],
    "upsamples": [(128, 256), (512, 64), (512, 128), (256, 256)],
    "batches": (1, 8),
}
SMALL: dict[str, Any] = {
    "image": (40, 9),
    "iterations": 2,
    "latent": 8,
    "norms": [(8, 6)],
    "upsamples": [(8, 6)],
    "batches": (2,),
}


def cases(device: str, shapes: dict[str, Any]) -> Iterator[Case]:
    """Every operation, the most telling shapes first."""
    make = Maker(device, shapes["iterations"])
    for batch in shapes["batches"]:
        side, size = shapes["image"]
        yield from make.photographs(batch, 3, side, side, size)
        yield from make.latents(batch, shapes["latent"], torch.float32)
    for channels, side in shapes["norms"]:
        yield make.norm(channels, side, torch.float16)
    for channels, side in shapes["upsamples"]:
        yield make.upsample(channels, side, torch.float16)
    yield from make.latents(1, shapes["latent"], torch.float16)
    for dtype in (torch.float32, torch.bfloat16):
        yield make.norm(*shapes["norms"][0], dtype)
        yield make.upsample(*shapes["upsamples"][0], dtype)


def measure(case: Case, functions: dict[str, Callable[[Case], Any]], chosen: str) -> list[dict[str, Any]]:
    """A row for every function of a case: its error, its time on the device and that of the host."""
    expected = case.precise()
    allowed = case.allowed(expected)
    copies = max(2, min(MOST_INPUTS, -(-ROTATED_BYTES // case.bytes)))
    inputs = [case, *(case.copy() for _ in range(copies - 1))]
    rows = []
    for name, function in functions.items():
        results = function(case)
        error = error_of(results, expected)
        row: dict[str, Any] = {"backend": name, "chosen": name == chosen, "error": error, "allowed": allowed}
        row |= device_time([partial(function, each) for each in inputs])
        row["host_us"] = host_time(partial(function, case))
        moved = case.bytes + sum(t.numel() * t.element_size() for t in tensors(results))
        row["gb_per_s"] = 1e-3 * moved / row["device_us"]
        rows.append(row | {"passed": error <= allowed})
    return rows


def backends(case: Case) -> list[dict[str, Any]]:
    """Rows of the reference, if a graph can have it, and of every backend."""
    names = [name for name in case.variants() if name != "reference" or case.operation not in WAITING]
    functions = {name: partial(_run, variant=name) for name in names}
    return measure(case, functions, case.chosen())


def _run(case: Case, variant: str) -> Any:
    return case.run(variant)


def compiled(case: Case, backend: str) -> list[dict[str, Any]]:
    """The row of the reference compiled by PyTorch for this shape alone, if a graph can have it soon."""
    if case.operation in NOT_COMPILED:
        return []
    torch.compiler.reset()
    function = torch.compile(getattr(reference, case.operation), dynamic=False, backend=backend)
    return measure(case, {COMPILED: lambda each: function(*each.arguments, **each.options)}, "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every case, even after one that failed; returns 0 where all succeeded, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--compiled", action="store_true", help="the compiled reference, not the backends")
    parser.add_argument("--small", action="store_true", help="arrays for a rehearsal, which compiles nothing")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    rows = partial(compiled, backend="eager" if options.small else "inductor") if options.compiled else backends
    with torch.no_grad():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return for_each(cases(device, SMALL if options.small else REAL), rows, "time", options.out)


if __name__ == "__main__":
    raise SystemExit(main())
