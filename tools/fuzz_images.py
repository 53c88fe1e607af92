"""Reads damaged picture files and counts what happens: a picture, one sentence, or a fault.

    python tools/fuzz_images.py --count 10000 --out runs/fuzz_images

A fault is a traceback, more than 10 s, more than 2 GB or the end of the process; its file is kept. The reading
runs in a process of its own, which is started again after a fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import resource
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import tifffile
import typer
from PIL import Image
from tqdm import tqdm

SECONDS, MEGABYTES = 10.0, 2000.0
_PILLOW = (
    "PNG",
    "JPEG",
    "WEBP",
    "BMP",
    "GIF",
    "TIFF",
    "PPM",
    "TGA",
    "JPEG2000",
    "AVIF",
    "ICO",
    "DIB",
    "SGI",
    "PCX",
)
_MODES = ("L", "RGB", "RGBA", "P", "LA", "1", "I;16", "CMYK")
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def samples() -> list[tuple[str, bytes]]:
    """Sound files of every format, mode and layout that can be written here: (name, contents)."""
    generator = np.random.default_rng(0)
    colours = Image.fromarray(generator.integers(0, 255, (24, 36, 3), dtype=np.uint8)).resize((72, 48))
    found = []
    for family in _PILLOW:
        for mode in _MODES:
            for options in ({}, {"exif": _exif(), "dpi": (300, 300)}):
                file = io.BytesIO()
                try:
                    colours.convert("L" if mode == "I;16" else mode).convert(mode).save(file, family, **options)
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # the format has no such mode
                found.append(
                    (f"{family.lower()}_{mode.replace(';', '')}{'_exif' * bool(options)}", file.getvalue())
                )
    deep = generator.integers(0, 65535, (24, 36, 3), dtype=np.uint16)
    for compression in (None, "zlib", "lzw", "packbits"):
        for array, name in ((deep, "16"), (deep[..., 0] // 256, "8"), (deep / np.float32(65535), "float")):
            file = io.BytesIO()
            array = array.astype(np.uint8) if name == "8" else array
            tifffile.imwrite(file, array, compression=compression, tile=(16, 16) if name == "16" else None)
            found.append((f"tiff_{name}_{compression}", file.getvalue()))
    return found


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return exif.tobytes()


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """The contents with one to four damages: bits, numbers, pieces left out, repeated or moved, a cut end."""
    for _ in range(generator.integers(1, 5)):
        if len(data) < 8:
            return data
        kind = generator.integers(6)
        # Headers decide most, so half of the damages are near the beginning.
        end = len(data) if generator.uniform() < 0.5 else min(len(data), 256)
        at = int(generator.integers(0, end))
        length = int(min(len(data) - at, generator.geometric(0.02)))
        if kind == 0:
            data = data[:at] + bytes([data[at] ^ (1 << int(generator.integers(8)))]) + data[at + 1 :]
        elif kind == 1:
            width = int(generator.choice([1, 2, 4]))
            number = int(generator.choice(_NUMBERS)) & ((1 << 8 * width) - 1)
            order = "little" if generator.uniform() < 0.5 else "big"
            data = data[:at] + number.to_bytes(width, order) + data[at + width :]
        elif kind == 2:
            data = data[:at] + data[at + length :]
        elif kind == 3:
            data = data[: at + length] + data[at:]
        elif kind == 4:
            data = data[:at] + generator.bytes(length) + data[at + length :]
        else:
            data = data[: max(at, 4)]
    return data


def file_of(seed: int, sound: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """The name of the sound file and the damaged contents that belong to a seed."""
    generator = np.random.default_rng(seed)
    name, data = sound[generator.integers(len(sound))]
    return name, damaged(data, generator)


def read_seeds(connection: Connection) -> None:
    """Reads the file of each seed that arrives, and answers with what happened and the peak of the memory."""
    from latentdem.errors import UserError
    from latentdem.io.images import read_bytes

    sound = samples()
    for _, data in sound:
        with contextlib.suppress(UserError):
            read_bytes(data)  # decoders are loaded when they are first needed
    connection.send(None)
    while (seed := connection.recv()) is not None:
        try:
            image = read_bytes(file_of(seed, sound)[1])
            outcome = "a picture" if bool(image.pixels.isfinite().all()) else "fault: not finite"
        except UserError as error:
            outcome = "one sentence" if "\n" not in str(error) else f"fault: several lines: {error}"
        except Exception:
            outcome = f"fault: {traceback.format_exc()}"
        connection.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))


class Reader:
    """The process that reads; it is started again where it does not answer."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=read_seeds, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._connection.recv()

    def read(self, seed: int) -> str:
        """What happened to the file of a seed."""
        try:
            self._connection.send(seed)
            if not self._connection.poll(SECONDS):
                return f"fault: more than {SECONDS:g} s"
            outcome, megabytes = self._connection.recv()
        except (EOFError, OSError):
            return "fault: the process ended"
        return outcome if megabytes < MEGABYTES else f"fault: {megabytes:.0f} MB"

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()


def main(
    count: Annotated[int, typer.Option(help="Damaged files.")] = 10000,
    first: Annotated[int, typer.Option(help="First seed; the same seed gives the same file.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the files that cause faults.")] = Path(
        "runs/fuzz_images"
    ),
) -> None:
    """Reads damaged picture files; the exit status is 1 if one of them causes a fault."""
    sound, reader = samples(), Reader()
    outcomes: Counter[str] = Counter()
    faults: dict[str, str] = {}
    for seed in tqdm(range(first, first + count), desc="files", mininterval=5):
        outcome = reader.read(seed)
        outcomes[outcome.split(":")[0]] += 1
        if outcome.startswith("fault"):
            name, data = file_of(seed, sound)
            out.mkdir(parents=True, exist_ok=True)
            (out / f"{seed}_{name}.bin").write_bytes(data)
            faults[f"{seed}_{name}"] = outcome
            reader.close()
            reader = Reader()
    reader.close()
    if faults:
        (out / "faults.json").write_text(json.dumps(faults, indent=2))
    typer.echo(
        f"{len(sound)} sound files, {count} damaged ones: " + ", ".join(f"{n} {k}" for k, n in outcomes.items())
    )
    raise typer.Exit(1 if faults else 0)


if __name__ == "__main__":
    typer.run(main)
