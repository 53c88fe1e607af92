"""The two ceilings of the device: a copy within its memory, and a matrix product.

python -m gpu_report.ceilings results.jsonl [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from .clocks import device_time
from .rows import write_row

COPIED_BYTES = 2**30
SIDE = 8192


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a row for each ceiling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="arrays for a rehearsal")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    copied, side = (2**20, 64) if options.small else (COPIED_BYTES, SIDE)
    source = torch.rand(copied // 4, device=device)
    target = torch.empty_like(source)
    seconds = 1e-6 * device_time([lambda: target.copy_(source)])["device_us"]
    row = {"kind": "ceiling", "of": "copy, read and written", "gb_per_s": 2e-9 * copied / seconds}
    write_row(options.out, row)
    # Random numbers: products of zeros are faster than those of data.
    for dtype in (torch.bfloat16, torch.float32):
        a, b = torch.randn(2, side, side, device=device).to(dtype)
        seconds = 1e-6 * device_time([lambda: a @ b])["device_us"]  # noqa: B023  is called before the next pass
        name = f"matrix product, {str(dtype).removeprefix('torch.')}"
        write_row(options.out, {"kind": "ceiling", "of": name, "tflops": 2e-12 * side**3 / seconds})
    print("3 rows, 0 failed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
