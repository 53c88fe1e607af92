"""Whole blind restorations by `latentdem deblur`, as a user runs it, with native operations and without.

    python -m benchmarks.whole_run --prior embedded [--photograph FILE] [--before PYTHON] [--out DIR]

Every row is a process of its own, so that its memory is its own too, and all rows of a photograph are of one
run. The first photograph is examples/blurred.png, whose sharp image is known, as are those of the simulated
ones of 128, 256 and 1024 pixels. `--before` names the Python of another environment, with an earlier release.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import skimage.transform
import torch
from matplotlib.figure import Figure

from latentdem.io.images import write_image
from latentdem.operators.kernels import motion_kernels
from latentdem.operators.simulate import blur_and_add_noise

from .conftest import device_name
from .report import slug

EXAMPLES = Path(__file__).parents[1] / "examples"
ROWS: dict[str, dict[str, str]] = {"native": {}, "reference": {"LATENTDEM_BACKEND": "reference"}}
PHASES = ("kernel search", "restoration")
SIZES = (128, 256, 1024)  # pixels a side of the simulated photographs
KERNEL_SIZE, NOISE_SIGMA = 21, 0.01


def main(
    photographs: Sequence[Path],
    out: Path,
    options: Sequence[str] = (),
    before: str | None = None,
    sizes: Sequence[int] = SIZES,
) -> None:
    """Measure every row, write csv and a figure, and print.

    Args:
        photographs: blurred ones besides the example.
        out: folder of the results.
        options: of `latentdem deblur`.
        before: the Python of an environment with an earlier release, for one more row; None for none.
        sizes: of the simulated photographs.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        example = EXAMPLES / "blurred.png", EXAMPLES / "sharp.png"
        known = [example, *(simulated(size, Path(folder)) for size in sizes)]
        for photograph, reference in [*known, *((one, None) for one in photographs)]:
            runs = [(name, sys.executable, environment) for name, environment in ROWS.items()]
            runs += [("before", before, {})] if before else []
            for name, python, environment in runs:
                row: dict[str, Any] = {"photograph": photograph.stem, "run": name}
                row |= measured(photograph, reference, python, environment, options)
                first = next((one for one in rows if one["photograph"] == photograph.stem), row)
                row["CPU-seconds / native"] = row["CPU-seconds"] / first["CPU-seconds"]
                rows.append(row)
                print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    folder = out / slug(device_name())
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "photographs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draw(rows).savefig(folder / "photographs.png", dpi=120)


def simulated(size: int, folder: Path) -> tuple[Path, Path]:
    """A blurred photograph of `size` x `size` pixels and its sharp image; scikit-image has what they show."""
    side = -(-(size + KERNEL_SIZE - 1) // 2)
    scenes = [
        skimage.transform.resize(getattr(skimage.data, name)(), (side, side), anti_aliasing=True)
        for name in ("astronaut", "rocket", "coffee", "chelsea")
    ]
    mosaic = np.vstack([np.hstack(scenes[:2]), np.hstack(scenes[2:])]) * 2 - 1
    sharp = torch.from_numpy(mosaic).float().movedim(-1, 0)[None]
    kernel = motion_kernels(1, KERNEL_SIZE, 0.5, 0)
    pair = blur_and_add_noise(sharp, kernel, NOISE_SIGMA, np.random.default_rng(0), "valid")
    paths = folder / f"simulated_{size}.png", folder / f"simulated_{size}_sharp.png"
    for path, image in zip(paths, pair, strict=True):
        write_image(path, image[..., :size, :size])
    return paths


def measured(
    photograph: Path, reference: Path | None, python: str, environment: dict[str, str], options: Sequence[str]
) -> dict[str, Any]:
    """Time, memory and PSNR (dB, at the best shift; None without a reference) of one restoration."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [python, "-m", "latentdem", "deblur", str(photograph.resolve())]
        command += ["-o", f"{folder}/restored.png"]
        command += ["--json", str(report), "--quiet", "--unexplained", "result", *options]
        command += ["--reference", str(reference.resolve())] if reference else []
        began = time.perf_counter()
        # In a folder of its own: the sources in the checkout may not be built, and would hide the package.
        process = subprocess.Popen(command, env=os.environ | environment, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: no kernel explains the photograph
            raise SystemExit(f"{' '.join(command)} failed")
        found = json.loads(report.read_text())
    seconds = {phase: float(found["seconds"].get(phase, 0)) for phase in PHASES}
    metrics = found["metrics"].get("result")
    return {
        "seconds": wall,
        "starting": wall - sum(seconds.values()),
        **seconds,
        "CPU-seconds": usage.ru_utime + usage.ru_stime,
        "MB": usage.ru_maxrss / 1024,
        "PSNR": metrics and metrics["psnr_aligned"],
        "kernel": found["kernel_size"],
    }


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Where the time goes: a bar for each row."""
    figure = Figure(figsize=(8, 1 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names, left = [f"{row['photograph']}, {row['run']}" for row in rows], [0.0] * len(rows)
    for phase in ("starting", *PHASES):
        widths = [row[phase] for row in rows]
        axes.barh(names, widths, left=left, label=phase)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend()
    return figure
