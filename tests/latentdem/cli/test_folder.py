from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DDPMScheduler
from torch import Tensor

from latentdem.io.codecs import decode
from latentdem.io.images import write_image
from latentdem.io.kernels import write_kernel
from latentdem.operators.kernels import gaussian_kernel
from latentdem.priors import EmbeddedPrior

Scene = Callable[..., Tensor]

COMMAND = "from latentdem.cli import main; main()"
DIES_WRITING_ITS_SECOND_IMAGE = """
import os, signal
from latentdem.output.files import Outputs
write, written = Outputs.write, []
def dying(self, result, source):
    if written:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(self)
    write(self, result, source)
Outputs.write = dying
"""


@pytest.fixture
def photos(here: Path, scene: Scene) -> Path:
    folder = here / "photos"
    folder.mkdir()
    for i in range(4):
        write_image(folder / f"{i}.png", scene(20, 24, seed=i))
    return folder


def prior_folder(prior: EmbeddedPrior, folder: Path) -> Path:
    prior.autoencoder.save_pretrained(folder / "autoencoder")
    prior.unet.save_pretrained(folder / "unet")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule).save_pretrained(folder / "scheduler")
    return folder


def restored(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*_deblurred.png"))


def test_a_folder_in_batches(cli: Any, photos: Path, here: Path, fake_deblur: Any) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    arguments = (
        "deblur",
        "photos",
        "--kernel-size",
        5,
        "--batch-size",
        3,
        "--no-figure",
        "--boundary",
        "valid",
    )
    result = cli.run(*arguments)
    assert restored(here / "photos_deblurred") == [f"{i}_deblurred.png" for i in range(4)]
    assert [len(call["image"]) for call in fake_deblur.calls] == [3, 1]
    assert "bad.png is not an image" in result.stderr
    assert fake_deblur.calls[0]["boundary"] == "valid"
    fake_deblur.calls.clear()
    assert "there before" in cli.run(*arguments).stdout
    assert not fake_deblur.calls


def test_pictures_that_no_kernel_explains_are_named_and_written_as_they_were(
    cli: Any, photos: Path, here: Path, fake_deblur: Any, scene: Scene
) -> None:
    fake_deblur.image = -scene(20, 24)
    options = ["--noise-sigma", 0.009, "--kernel-size", 5, "--unexplained", "input"]
    result = cli.run("deblur", "photos", "--no-figure", *options)
    assert (
        "Not explained by any kernel found and written as they were: 0.png, 1.png, 2.png, 3.png"
        in result.stderr
    )
    written = decode(here / "photos_deblurred" / "3_deblurred.png").array
    np.testing.assert_array_equal(written, decode(photos / "3.png").array)


def test_interrupted_the_same_command_continues(cli: Any, photos: Path, here: Path, fake_deblur: Any) -> None:
    arguments = ("deblur", "photos", "--kernel-size", 5, "--no-figure", "-o", "out")
    fake_deblur.fail_at = 2
    assert "the same command continues" in cli.sentence(*arguments, status=130)
    assert restored(here / "out") == ["0_deblurred.png", "1_deblurred.png"]
    fake_deblur.fail_at = None
    fake_deblur.calls.clear()
    cli.run(*arguments)
    assert len(fake_deblur.calls) == 2


def test_results_of_other_settings_are_refused(cli: Any, photos: Path, here: Path, fake_deblur: Any) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    arguments = ("deblur", "photos", "--kernel-size", 5, "--no-figure", "-o", "out")
    cli.run(*arguments, "--kernel", "known.npy")
    assert "results with other settings (kernel " in cli.sentence(*arguments)


def test_nothing_but_bad_files_is_a_failure(cli: Any, here: Path, fake_deblur: Any) -> None:
    (here / "bad").mkdir()
    (here / "bad/x.png").write_bytes(b"no image")
    cli.run("deblur", "bad", "--no-figure", status=1)


def test_a_folder_without_images(cli: Any, here: Path, fake_deblur: Any) -> None:
    (here / "empty").mkdir()
    assert "There are no images in empty" in cli.sentence("deblur", "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_two_processes_share_a_folder_and_the_next_run_does_what_one_left(
    cli: Any, photos: Path, here: Path, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is this process."""
    prior = prior_folder(tiny_prior, here / "prior")
    arguments = ["deblur", "photos", "--prior", str(prior), "--kernel-size", "3", "--steps", "2"]
    arguments += ["--no-figure", "--device", "cpu", "-o", "out"]
    other = subprocess.Popen(
        [sys.executable, "-c", DIES_WRITING_ITS_SECOND_IMAGE + COMMAND, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
    )
    with monkeypatch.context() as environment:
        for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
            environment.setenv(name, value)
        cli.run(*arguments)
    assert other.wait(timeout=300) < 0
    assert restored(here / "out") == ["0_deblurred.png", "1_deblurred.png", "2_deblurred.png"]
    times = {path: path.stat().st_mtime_ns for path in (here / "out").iterdir()}
    cli.run(*arguments)
    assert len(restored(here / "out")) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
