"""Restores a folder of small pictures in one process, as the command does, and follows its memory.

    python tools/folder_memory.py --count 2000 --out runs/folder_memory

Prints the resident memory at every 100th picture, and the slope of a straight line through what comes after the
first tenth of the pictures, in which libraries are loaded. The pictures have six sizes.
"""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

import latentdem
from latentdem.cli import app

SIZES = ((32, 32), (32, 40), (40, 32), (24, 32), (32, 24), (36, 36))


def resident() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_pictures(folder: Path, count: int) -> None:
    """Small pictures of random edges, blurred by the kernel that `main` gives."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        width, height = SIZES[i % len(SIZES)]
        blocks = generator.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        sharp = np.asarray(Image.fromarray(blocks).resize((width + 4, height), Image.Resampling.NEAREST), float)
        blurred = np.mean([sharp[:, j : j + width] for j in range(5)], 0)
        blurred += generator.normal(0, 1, blurred.shape)
        Image.fromarray(blurred.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")


def main(
    count: Annotated[int, typer.Option(help="Pictures.")] = 2000,
    every: Annotated[int, typer.Option(help="Pictures between two measurements.")] = 100,
    prior: Annotated[str, typer.Option(help="As of latentdem deblur.")] = "embedded",
    out: Annotated[Path, typer.Option(help="New folder for pictures, results and figures.")] = Path(
        "runs/folder_memory"
    ),
) -> None:
    """Follows the memory of one folder run; the exit status is that of the command."""
    torch.set_num_threads(1)
    write_pictures(out / "photos", count)
    kernel = np.zeros((5, 5), np.float32)
    kernel[2] = 0.2
    np.save(out / "kernel.npy", kernel)
    rows: list[tuple[int, float, float]] = []
    done, began, restore = 0, time.monotonic(), latentdem.deblur

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        if done % every == 0:
            rows.append((done, resident(), time.monotonic() - began))
            typer.echo(f"{done} pictures: {rows[-1][1]:.1f} MB after {rows[-1][2]:.0f} s")
        done += 1
        return restore(*arguments, **options)

    latentdem.deblur = counted
    files = {"-o": "deblurred/", "--kernel": "kernel.npy", "--json": "report.json"}
    command = ["deblur", str(out / "photos"), "--steps", "4", "--quality", "fast", "--prior", prior, "--quiet"]
    for option, name in files.items():
        command += [option, f"{out}/{name}"]
    status = 0
    try:
        app(command)
    except SystemExit as ended:
        status = int(ended.code or 0)
    with (out / "memory.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("pictures", "megabytes", "seconds"), *rows])
    late = np.array([row[:2] for row in rows if row[0] >= count / 10])
    slope = 1000 * np.polyfit(*late.T, 1)[0]
    typer.echo(f"from picture {late[0, 0]:.0f} on: {late[0, 1]:.1f} MB and {slope:+.2f} kB per picture")
    raise typer.Exit(status)


if __name__ == "__main__":
    typer.run(main)
