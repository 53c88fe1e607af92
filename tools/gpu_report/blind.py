"""Photographs restored blind with the embedded prior, everything estimated, as a user does it.

python -m gpu_report.blind results.jsonl [--small]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentdem import deblur
from latentdem.io.images import read_image
from latentdem.metrics import image_metrics
from latentdem.operators.kernels import motion_kernels
from latentdem.operators.simulate import blur_and_add_noise

from .rows import write_all
from .whole_run import Measure, on_off, seconds

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KERNEL_SIZE, NOISE_SIGMA = 21, 0.01


def mosaic(side: int) -> tuple[Tensor, Tensor]:
    """A blurred photograph (1, 3, side, side) of mirrored copies of the example, and its sharp image."""
    sharp = read_image(EXAMPLES / "sharp.png").pixels
    wanted = side + KERNEL_SIZE - 1
    for axis in (-1, -2):
        copies = -(-wanted // sharp.shape[axis])
        sharp = torch.cat([sharp.flip(axis) if i % 2 else sharp for i in range(copies)], axis)
    kernel = motion_kernels(1, KERNEL_SIZE, 0.5, 0)
    sharp = sharp[..., :wanted, :wanted]
    y, sharp = blur_and_add_noise(sharp, kernel, NOISE_SIGMA, np.random.default_rng(0), "valid")
    return y.clamp(-1, 1), sharp


def rows_of(device: str, small: bool) -> Iterator[Measure]:
    """What is measured: functions that return rows."""
    example = tuple(read_image(EXAMPLES / f"{name}.png").pixels for name in ("blurred", "sharp"))
    if small:
        part = tuple(image[..., 60:124, 60:124] for image in example)
        yield partial(restored, device, *part, graph=True, kernel_size=9, quality="fast", steps=2)
        return
    yield partial(restored, device, *example, graph=True, first=True)
    for graph in (True, False):
        yield partial(restored, device, *example, graph=graph)
    yield partial(restored, device, *mosaic(1024), graph=True)


def restored(
    device: str, y: Tensor, sharp: Tensor, *, graph: bool, first: bool = False, **options: Any
) -> list[dict[str, Any]]:
    """The row of one photograph, (1, 3, h, w), with the PSNR at the best shift."""
    results = []
    taken = seconds(lambda: results.append(deblur(y, device=device, cuda_graph=graph, **options)))
    row = {"kind": "blind", "photograph": f"{y.shape[-1]} x {y.shape[-2]}", "graph": on_off(graph), "s": taken}
    if first:
        row["photograph"] += ", the first, with what is compiled at its first use"
    return [row | {"psnr": image_metrics(results[0].image.cpu(), sharp).psnr_aligned}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the rows of everything, even after something that failed; returns 0 where all succeeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="a small photograph and few steps for a rehearsal")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return write_all(rows_of(device, options.small), options.out)


if __name__ == "__main__":
    raise SystemExit(main())
