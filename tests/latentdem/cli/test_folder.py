from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

import latentdem
from latentdem.errors import UserError
from latentdem.io.codecs import decode, encode
from latentdem.io.images import write_image
from latentdem.priors import EmbeddedPrior

Scene = Callable[..., Tensor]

COMMAND = "from latentdem.cli import main; main()"
DIES_WRITING_ITS_SECOND_IMAGE = """
import os, signal
from latentdem.io import images
write, written = images.write_image, []
def dying(*arguments, **options):
    if written:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(arguments)
    write(*arguments, **options)
images.write_image = dying
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
    (photos / "notes.txt").touch()
    (photos / "more").mkdir()
    arguments = ("deblur", "photos", "--kernel-size", 5, "--batch-size", 3, "--boundary", "valid")
    result = cli.run(*arguments, status=4)
    assert cli.names(here / "photos_deblurred") == [f"{i}_deblurred.png" for i in range(4)]
    assert [len(call["image"]) for call in fake_deblur.calls] == [3, 1]
    assert "bad.png is not an image" in result.stderr
    assert "Left out of photos, not being photographs: more/, notes.txt." in result.stderr
    assert fake_deblur.calls[0]["boundary"] == "valid"


def test_warnings_are_said_and_stand_in_the_reports(
    cli: Any, photos: Path, here: Path, fake_deblur: Any
) -> None:
    pages = [Image.open(photos / f"{i}.png") for i in (0, 1)]
    pages[0].save(photos / "4.tif", save_all=True, append_images=pages[1:])
    sentence = "photos/4.tif holds 2 pictures; only the first one is read."
    result = cli.run("deblur", "photos", "--json", "r.json")
    assert result.stderr.count(sentence) == 1
    warnings = [report["warnings"] for report in json.loads((here / "r.json").read_text())]
    assert warnings == [[], [], [], [], [sentence]]


def test_existing_results_are_refused_skipped_or_replaced(
    cli: Any, photos: Path, here: Path, fake_deblur: Any
) -> None:
    cli.run("deblur", photos / "1.png", photos / "2.png", "-o", "out")
    fake_deblur.calls.clear()
    arguments = ("deblur", "photos", "-o", "out")
    sentence = cli.sentence(*arguments)
    assert sentence.startswith(
        "2 of the 4 results exist already, such as out/1_deblurred.png; add --skip-existing"
    )
    assert not fake_deblur.calls
    assert "there before   2" in cli.run(*arguments, "--skip-existing").stdout
    assert len(fake_deblur.calls) == 2
    cli.run(*arguments, "--overwrite")
    assert len(fake_deblur.calls) == 6


def test_reports_of_a_folder(cli: Any, photos: Path, here: Path, fake_deblur: Any) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    cli.run("deblur", "photos/0.png", "photos/1.png", "-o", "out", "--extras", "extras")
    assert len(cli.names(here / "extras")) == 8
    cli.run("deblur", "photos", "-o", "out", "--skip-existing", "--json", "r.json", status=4)
    reports = {report["input"]: report for report in json.loads((here / "r.json").read_text())}
    states = {name: report["status"] for name, report in reports.items()}
    assert states == {
        "photos/0.png": "skipped",
        "photos/1.png": "skipped",
        "photos/2.png": "restored",
        "photos/3.png": "restored",
        "photos/bad.png": "failed",
    }
    assert "is not an image" in reports["photos/bad.png"]["reason"]
    assert reports["photos/3.png"]["output"] == "out/3_deblurred.png"
    assert reports["photos/3.png"]["residual"] == 0.02


def test_pictures_that_no_kernel_explains_are_named_and_written_as_they_were(
    cli: Any, photos: Path, here: Path, fake_deblur: Any, scene: Scene
) -> None:
    fake_deblur.image = -scene(20, 24)
    options = ["--noise-sigma", 0.009, "--kernel-size", 5, "--unexplained", "input"]
    result = cli.run("deblur", "photos", *options, status=3)
    names = ", ".join(f"photos/{i}.png" for i in range(4))
    assert f"Not explained by any kernel found and written as they were: {names}" in result.stderr
    written = decode(here / "photos_deblurred" / "3_deblurred.png").array
    np.testing.assert_array_equal(written, decode(photos / "3.png").array)


def test_interrupted_the_same_command_continues(cli: Any, photos: Path, here: Path, fake_deblur: Any) -> None:
    arguments = ("deblur", "photos", "--kernel-size", 5, "-o", "out")
    fake_deblur.fail_at = 2
    sentence = cli.sentence(*arguments, status=130)
    assert sentence == "Interrupted; 2 of 4 are written, and the same command with --skip-existing continues."
    assert restored(here / "out") == ["0_deblurred.png", "1_deblurred.png"]
    fake_deblur.fail_at = None
    fake_deblur.calls.clear()
    cli.run(*arguments, "--skip-existing")
    assert len(fake_deblur.calls) == 2


def test_bad_photographs_cost_only_themselves(
    cli: Any, photos: Path, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore, count = latentdem.deblur, []

    def refuse_second(image: Tensor, **options: Any) -> Any:
        count.append(image)
        if len(count) == 2:
            raise UserError("Too small.")
        result = restore(image, **options)
        if len(count) == 3:
            result.image[:] = float("nan")
        return result

    monkeypatch.setattr(latentdem, "deblur", refuse_second)
    result = cli.run("deblur", "photos", status=4)
    assert "photos/1.png: Too small." in result.stderr
    assert "2_deblurred.png is not written: the image has values that are not finite." in result.stderr
    assert restored(here / "photos_deblurred") == ["0_deblurred.png", "3_deblurred.png"]


def test_too_little_memory_is_one_sentence(cli: Any, photos: Path, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = 0, RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.")
    result = cli.run("deblur", "photos", status=1)
    assert "photos/0.png: There is not enough memory; give a smaller --batch-size" in result.stderr


def test_boundary_is_that_of_each_photograph(
    cli: Any, photos: Path, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, False, False, True])
    monkeypatch.setattr("latentdem.restoration.boundary.looks_circular", lambda y: next(answers))
    cli.run("deblur", "photos", "--batch-size", 4)
    calls = sorted((call["boundary"], len(call["image"])) for call in fake_deblur.calls)
    assert calls == [("circular", 2), ("valid", 2)]


def test_transparent_pixels_do_not_count_in_a_batch(
    cli: Any, photos: Path, here: Path, fake_deblur: Any
) -> None:
    array = np.full((20, 24, 4), 255, np.uint8)
    array[:, :5, 3] = 0
    encode(photos / "cut.png", array)
    cli.run("deblur", "photos", "--batch-size", 5, "--boundary", "valid")
    mask = fake_deblur.calls[0]["mask"]
    assert mask.shape == (5, 1, 20, 24)
    assert mask.mean((1, 2, 3)).tolist() == pytest.approx([1, 1, 1, 1, 19 / 24])


@pytest.mark.parametrize("lost", ["photos/2.png", "out"])
def test_what_is_lost_in_the_middle_costs_only_itself(
    cli: Any, photos: Path, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """A photograph that is removed before its turn, or the folder of the results."""
    restore, kept = latentdem.deblur, here / "kept"

    def lose(image: Tensor, **options: Any) -> Any:
        if len(fake_deblur.calls) == 1:
            (here / lost).rename(kept)
        return restore(image, **options)

    monkeypatch.setattr(latentdem, "deblur", lose)
    result = cli.run("deblur", "photos", "-o", "out", status=4)
    kept.rename(here / lost)
    sentences = ["photos/2.png does not exist"]
    if lost == "out":
        sentences = [f"Cannot write out/{i}_deblurred.png: no such file or directory." for i in (1, 2, 3)]
    assert all(sentence in result.stderr for sentence in sentences)
    assert len(restored(here / "out")) == 4 - len(sentences)
    monkeypatch.setattr(latentdem, "deblur", restore)
    cli.run("deblur", "photos", "-o", "out", "--skip-existing")
    assert len(restored(here / "out")) == 4


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError(30, "Read-only file system")],
    ids=["full", "locked"],
)
def test_a_disk_that_refuses_in_the_middle(
    cli: Any, photos: Path, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """The results before it stay, none is half written, and the same command goes on when there is room."""
    write, written = Path.write_bytes, []

    def refuse(path: Path, data: bytes) -> int:
        if written:
            write(path, data[: len(data) // 2])
            raise error
        written.append(path)
        return write(path, data)

    arguments = ("deblur", "photos", "-o", "out")
    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", refuse)
        result = cli.run(*arguments, status=4)
    assert result.stderr.count(f"_deblurred.png: {str(error.strerror).lower()}.") == 3
    assert cli.names(here / "out") == ["0_deblurred.png"]
    cli.run(*arguments, "--skip-existing")
    assert len(restored(here / "out")) == 4
    assert len(fake_deblur.calls) == 7


def test_nothing_but_bad_files_is_a_failure(cli: Any, here: Path, fake_deblur: Any) -> None:
    (here / "bad").mkdir()
    (here / "bad/x.png").write_bytes(b"no image")
    cli.run("deblur", "bad", status=1)


def test_a_folder_without_images(cli: Any, here: Path, fake_deblur: Any) -> None:
    (here / "empty").mkdir()
    assert "There are no images in empty" in cli.sentence("deblur", "empty")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_two_processes_share_a_folder_and_the_next_run_does_what_one_left(
    cli: Any, photos: Path, here: Path, tiny_prior: EmbeddedPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is this process."""
    prior = prior_folder(tiny_prior, here / "prior")
    np.save(here / "kernel.npy", np.full((3, 3), 1 / 9))  # one that is found is refused with a random prior
    arguments = ["deblur", "photos", "--prior", str(prior), "--kernel", "kernel.npy", "--steps", "2"]
    arguments += ["--device", "cpu", "-o", "out"]
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
    cli.run(*arguments, "--skip-existing")
    assert len(restored(here / "out")) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
