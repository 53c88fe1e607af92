"""The main job gives the same image on the references as on the compiled operations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import latentdem_ext as ext
from latentdem.io.images import read_image, write_image

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "blurred.png"


def deblur(folder: Path, backend: str, *options: str) -> tuple[torch.Tensor, np.ndarray, dict]:
    """Image, kernel and report of the command in a process of its own."""
    folder.mkdir()
    command = [sys.executable, "-c", "from latentdem.cli import main; main()", "deblur", "../photo.png"]
    command += ["--extras", "extras", "-o", "out.tif", *options]
    environment = os.environ | {"LATENTDEM_BACKEND": backend}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads((folder / "extras" / "out_report.json").read_text())
    return read_image(folder / "out.tif").pixels, np.load(folder / "extras" / "out_kernel.npy"), report


@pytest.mark.slow
@pytest.mark.skipif(not ext.backends()["cpp"].available, reason=ext.backends()["cpp"].reason)
@pytest.mark.parametrize("options", [["--boundary", "circular"], ["--boundary", "valid"]])
def test_deblur_is_the_same_on_the_references(tmp_path, options):
    write_image(tmp_path / "photo.png", read_image(EXAMPLE).pixels[..., 64:128, 64:144])
    options = [*options, "--kernel-size", "17", "--steps", "4", "--noise-sigma", "0.02", "--device", "cpu"]
    image, kernel, report = deblur(tmp_path / "cpp", "cpp", *options)
    expected, expected_kernel, expected_report = deblur(tmp_path / "reference", "reference", *options)
    assert (image - expected).square().mean().sqrt() < 1e-3
    assert np.abs(kernel - expected_kernel).max() < 1e-3 * expected_kernel.max()
    assert (image - read_image(tmp_path / "photo.png").pixels).abs().mean() > 0.01  # it did something
    settings, expected_settings = report["settings"], expected_report["settings"]
    assert settings["backend"] == "cpp"
    assert settings["operations"]["blur"] == "cpp"
    assert expected_settings["backend"] == "reference"
    assert set(expected_settings["operations"].values()) == {"reference"}
    assert expected_settings["operations"].keys() == settings["operations"].keys()
