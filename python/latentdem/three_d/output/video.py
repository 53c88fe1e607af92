"""Turntable as an MP4 file, written by imageio with the ffmpeg of imageio-ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UserError
from ...io.files import atomic_path


def check_video(path: str | Path) -> None:
    """Makes sure, before a long computation, that `write_video` can write to `path`.

    Raises:
        UserError: another ending than .mp4, or packages are missing.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"A video is written as .mp4, not '{path.suffix}'; rename {path.name}.")
    if find_spec("imageio") is None or find_spec("imageio_ffmpeg") is None:
        raise UserError(
            "A video needs imageio and imageio-ffmpeg; install with: pip install imageio imageio-ffmpeg."
        )


def write_video(frames: Sequence[Image.Image], path: str | Path, milliseconds: int) -> None:
    """Writes frames of one size atomically as H.264, in the pixel format that all players support.

    Args:
        frames: RGB.
        path: ends with .mp4.
        milliseconds: duration of a frame.

    Raises:
        UserError: as `check_video`, or the file cannot be written.
    """
    check_video(path)
    from imageio import v3 as imageio

    pixels = np.stack([np.asarray(frame) for frame in frames])
    with atomic_path(path) as temporary:
        # The pixel format has half the resolution of colours, so sides must be even.
        options: dict[str, Any] = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 2}
        imageio.imwrite(temporary, pixels, plugin="FFMPEG", fps=1000 / milliseconds, **options)
