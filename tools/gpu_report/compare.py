"""Compares every operation on every backend with the reference in float64, in one process.

python -m gpu_report.compare results.jsonl [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .cases import HALF, Case, Maker, error_of
from .rows import for_each

# Batch, channels, height, width and K: one sample and several, odd and even sides, kernels as large as the
# image, padded grids of every size that is kept in shared memory and one that is not, heights with and without
# kernels of their own.
IMAGES = [
    (1, 1, 16, 16, 16),
    (7, 3, 33, 40, 31),
    (7, 3, 65, 64, 64),
    (2, 3, 64, 60, 60),
    (1, 3, 1024, 72, 33),
    (1, 1, 250, 140, 129),
    (1, 3, 600, 401, 33),
    (8, 3, 512, 512, 64),
]
MAPS = [(128, 64), (512, 17), (96, 33), (3, 5)]
SINGLE = (torch.float32, *HALF)


def cases(device: str, images: Sequence[tuple[int, ...]], maps: Sequence[tuple[int, int]]) -> Iterator[Case]:
    """Every operation on awkward shapes."""
    make = Maker(device)
    for shape in images:
        for each in make.photographs(*shape):
            yield each
            if each.operation == "hqs_prepare":
                yield replace(each, options=each.options | {"per_channel": True})
    for dtype in SINGLE:
        for batch, side in ((1, 64), (7, 5)):
            yield from make.latents(batch, side, dtype)
        for channels, side in maps:
            for last in (True, False):
                yield make.norm(channels, side, dtype, last)
            yield make.upsample(channels, side, dtype)


def compare(case: Case) -> list[dict[str, Any]]:
    """A row for every backend: its error, and the largest allowed."""
    expected = case.precise()
    allowed, chosen, rows = case.allowed(expected), case.chosen(), []
    for variant in case.variants():
        error = error_of(case.run(variant), expected)
        row = {"backend": variant, "chosen": variant == chosen, "error": error, "allowed": allowed}
        rows.append(row | {"passed": error <= allowed})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares every case, even after one that failed; returns 0 where all are right, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="arrays for a rehearsal")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    images, maps = (IMAGES[:2], MAPS[2:]) if options.small else (IMAGES, MAPS)
    with torch.no_grad():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return for_each(cases(device, images, maps), compare, "comparison", options.out)


if __name__ == "__main__":
    raise SystemExit(main())
