"""Compares two installs of latentdem: the same commands with the same seed must write the same bits.

    python -m tools.compare_installs BEFORE_PYTHON AFTER_PYTHON [--image IMG] [--views IMG IMG] [--quick]

BEFORE_PYTHON and AFTER_PYTHON are the Python programs of two environments on one machine, with the same
versions of PyTorch and NumPy. `latentdem deblur`, three operators of `latentdem restore` and `latentdem views`
run in both, on one CPU thread. Pixels, kernels and JSON results are compared, times and versions are not. The
exit status is 0 only where everything is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageSequence

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MAIN = "import sys; from latentdem.cli import main; sys.argv[0] = 'latentdem'; main()"
NOT_COMPARED = {"seconds", "versions", "peak_memory"}
DRAWINGS = "figure.png"  # labels may be worded differently; the numbers in it are compared elsewhere
QUICK_SIDE = 96  # pixels


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table of all results; returns 0 where all of them are the same, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="Python program of the one environment")
    parser.add_argument("after", type=Path, help="Python program of the other environment")
    parser.add_argument("--image", type=Path, default=EXAMPLES / "blurred.png", help="blurred photograph")
    pair = [EXAMPLES / "chair_1.png", EXAMPLES / "chair_2.png"]
    parser.add_argument("--views", type=Path, nargs=2, default=pair, help="two pictures of one object")
    parser.add_argument("--quick", action="store_true", help="small images and few diffusion steps")
    options = parser.parse_args(arguments)

    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, mask = prepare_inputs(options.image, folder, options.quick)
        for case, command in commands(image, mask, options.views, options.quick).items():
            print(f"{case} ...", flush=True)
            outputs = {side: folder / side / case for side in ("before", "after")}
            errors = [run(getattr(options, side), command, output) for side, output in outputs.items()]
            if any(errors):
                rows += [(case, side, error) for side, error in zip(outputs, errors, strict=True) if error]
            else:
                rows += [(case, *row) for row in compare(outputs["before"], outputs["after"])]
    print_table([("command", "result", "state"), *rows])
    return 0 if all(state == "same" for _, _, state in rows) else 1


def prepare_inputs(image: Path, folder: Path, quick: bool) -> tuple[Path, Path]:
    """Files of the photograph, its central part where `quick`, and of a mask that hides a rectangle of it."""
    with Image.open(image) as opened:
        picture = opened.convert("RGB")
    if quick:
        left, top = (max(0, (length - QUICK_SIDE) // 2) for length in picture.size)
        right, bottom = (start + min(QUICK_SIDE, n) for start, n in zip((left, top), picture.size, strict=True))
        picture = picture.crop((left, top, right, bottom))
    mask = Image.new("L", picture.size, 255)
    quarter = (picture.width // 4, picture.height // 4)
    ImageDraw.Draw(mask).rectangle((*quarter, quarter[0] + 15, quarter[1] + 15), fill=0)
    paths = folder / "photograph.png", folder / "mask.png"
    picture.save(paths[0])
    mask.save(paths[1])
    return paths


def commands(image: Path, mask: Path, views: Sequence[Path], quick: bool) -> dict[str, list[str]]:
    """Arguments of `latentdem` by the name of the comparison; each writes into the current folder."""
    photograph = ["--seed", "0", "--device", "cpu", "--extras", ".", "-o", "result.png"]
    photograph += [*(["--steps", "6"] if quick else [])]
    size, disk = ("9", "9") if quick else ("33", "25")
    operators = {"disk": f"disk:size={disk}", "inpaint": f"inpaint:mask={mask}", "gamma": "gamma"}
    return {
        "deblur": ["deblur", str(image), "--kernel-size", size, *photograph],
        **{
            f"restore_{name}": ["restore", str(image), "--operator", operator, *photograph]
            for name, operator in operators.items()
        },
        "views": [
            *("views", *map(str, views), "-o", ".", "--seed", "0", "--device", "cpu"),
            *("--azimuths", "2" if quick else "4", "--steps", "3" if quick else "10"),
        ],
    }


def run(python: Path, command: Sequence[str], folder: Path) -> str:
    """Runs a command of `latentdem` in an empty folder; returns why it failed, "" where it did not."""
    folder.mkdir(parents=True)
    # A search path set for one of the two environments would hide the package of the other.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [str(python), "-c", MAIN, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == 0:
        return ""
    lines = process.stderr.strip().splitlines() or ["no message"]
    return f"failed with status {process.returncode}: {lines[-1]}"


def compare(before: Path, after: Path) -> list[tuple[str, str]]:
    """(file name, "same" or what differs) of all files below two folders."""
    names = {
        path.relative_to(folder)
        for folder in (before, after)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(DRAWINGS)
    }
    if not names:
        return [("files", "missing: nothing was written")]
    return [(str(name), compare_files(before / name, after / name)) for name in sorted(names)]


def compare_files(before: Path, after: Path) -> str:
    """The word "same", or what differs between two files of one name."""
    for side, path in (("before", before), ("after", after)):
        if not path.exists():
            return f"differs: missing {side}"
    if before.suffix == ".json":
        pair = [json.loads(path.read_text(encoding="utf-8")) for path in (before, after)]
        differing = differing_keys(*pair)
        return f"differs: {', '.join(differing)}" if differing else "same"
    if before.suffix in (".png", ".gif", ".npy"):
        return compare_arrays(read_array(before), read_array(after))
    return "same" if before.read_bytes() == after.read_bytes() else "differs"


def differing_keys(before: Any, after: Any, name: str = "") -> list[str]:
    """Names of the entries of two JSON values that differ; entries of NOT_COMPARED are left out."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names: list[str] = []
        for key in sorted((before.keys() | after.keys()) - NOT_COMPARED):
            full_name = f"{name}.{key}".lstrip(".")
            if key in before and key in after:
                names += differing_keys(before[key], after[key], full_name)
            else:
                names.append(full_name)
        return names
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [entry for i, (a, b) in pairs for entry in differing_keys(a, b, f"{name}[{i}]")]
    return [] if before == after else [name or "value"]


def read_array(path: Path) -> np.ndarray:
    """Numbers of a NumPy file, or pixels of all frames of a picture."""
    if path.suffix == ".npy":
        return np.load(path)
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)])


def compare_arrays(before: np.ndarray, after: np.ndarray) -> str:
    """The word "same" for equal bits, else how many entries differ."""
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        return f"differs: {before.dtype} {before.shape} before, {after.dtype} {after.shape} after"
    if before.tobytes() == after.tobytes():
        return "same"
    unequal = before != after  # 0.0 and -0.0 are equal and differ in their bits
    largest = np.abs(before.astype(np.float64) - after.astype(np.float64)).max()
    return f"differs: {int(unequal.sum())} of {unequal.size} entries, by up to {largest:.3g}"


def print_table(rows: Sequence[tuple[str, str, str]]) -> None:
    """Prints rows of three columns; the last one takes what width it needs."""
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row in rows:
        print(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}")


if __name__ == "__main__":
    raise SystemExit(main())
