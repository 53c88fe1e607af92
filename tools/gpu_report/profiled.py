"""Runs three operations once for Nsight Compute to read the counters of.

ncu --profile-from-start off ... python -m gpu_report.profiled [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch

import latentdem_ext as ext

from .cases import OPERATIONS, Case, Maker

OWN = ("cuda", "triton", "cpp")


def cases(device: str, small: bool) -> Iterator[Case]:
    """The operations whose time is that of the device, at their largest shapes."""
    make = Maker(device)
    images = make.photographs(2, 3, 40, 40, 9) if small else make.photographs(8, 3, 512, 512, 64)
    yield next(case for case in images if case.operation == "blur_proximal")
    channels, side = (8, 6) if small else (128, 512)
    yield make.norm(channels, side, torch.float16)
    yield make.upsample(*((8, 6) if small else (256, 256)), torch.float16)


def own_backend(case: Case) -> str:
    """The backend of this package that takes the arguments; its result has been computed once."""
    for name in OWN:
        if name in OPERATIONS[case.operation].backends and ext.backends()[name].available:
            with suppress(RuntimeError):
                case.run(name)
                return name
    return "reference"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every operation on kernels of this package: once to warm up, once to be profiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="arrays for a rehearsal")
    options = parser.parse_args(arguments)
    there = torch.cuda.is_available()
    with torch.no_grad():
        for case in cases("cuda" if there else "cpu", options.small):
            backend = own_backend(case)
            if there:
                torch.cuda.synchronize()
                torch.cuda.profiler.start()
            case.run(backend)
            if there:
                torch.cuda.synchronize()
                torch.cuda.profiler.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
