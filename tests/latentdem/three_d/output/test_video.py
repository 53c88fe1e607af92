"""Turntables as videos."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from latentdem.errors import UserError
from latentdem.three_d.output import video
from latentdem.three_d.output.video import check_video, write_video

COLOURS = [(250, 20, 20), (20, 250, 20), (20, 20, 250)]


def test_frames_are_read_in_order(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    import imageio.v3 as imageio

    frames = [Image.new("RGB", (66, 66), colour) for colour in COLOURS]
    write_video(frames, tmp_path / "turn.mp4", 200)
    assert [path.name for path in tmp_path.iterdir()] == ["turn.mp4"]
    read = imageio.imread(tmp_path / "turn.mp4", plugin="FFMPEG")
    assert read.shape == (3, 66, 66, 3)
    assert np.abs(read.mean((1, 2)) - COLOURS).max() < 15
    assert imageio.immeta(tmp_path / "turn.mp4", plugin="FFMPEG")["fps"] == pytest.approx(5)


def test_missing_packages_are_reported(monkeypatch):
    with pytest.raises(UserError, match=r"rename turn\.avi"):
        check_video("turn.avi")
    monkeypatch.setattr(video, "find_spec", lambda name: None if name == "imageio_ffmpeg" else 1)
    with pytest.raises(UserError, match="pip install imageio imageio-ffmpeg"):
        check_video("turn.mp4")
