from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from latentdem.errors import UserError
from latentdem.io.codecs import decode, encode
from latentdem.io.images import write_image
from latentdem.io.kernels import read_kernel, write_kernel
from latentdem.operators.kernels import gaussian_kernel

Scene = Callable[..., Tensor]


def test_deblur_writes_image_kernel_and_figure_here(cli: Any, here: Path, fake_deblur: Any) -> None:
    result = cli.run("deblur", "../photo.png", "--kernel-size", 9)
    assert cli.names(here) == [
        "photo_deblurred.png",
        "photo_deblurred_figure.png",
        "photo_deblurred_kernel.npy",
        "photo_deblurred_kernel.png",
    ]
    np.testing.assert_array_equal(
        decode(here / "photo_deblurred.png").array, decode(Path("../photo.png")).array
    )
    assert read_kernel(here / "photo_deblurred_kernel.npy")[0, 0, 4, 4] == 1
    for name in cli.names(here):
        assert name in result.stdout
    for value in ("0.0100", "0.0200", "2.0"):  # noise, residual, seconds
        assert value in result.stdout
    call = fake_deblur.calls[0]
    assert (call["kernel_size"], call["kernel"], call["noise_sigma"], call["steps"]) == (9, None, None, None)
    assert (call["prior"], call["e_step"], call["device"], call["boundary"]) == (
        "embedded",
        "proximal",
        "auto",
        "auto",
    )


@pytest.mark.parametrize("written", ["input", "result"])
def test_picture_that_no_kernel_explains_comes_back_as_it_was(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene, written: str
) -> None:
    fake_deblur.image = -scene()
    arguments = ["deblur", "../photo.png", "--no-figure", "--kernel-size", 9]
    assert not cli.run(*arguments).stderr
    options = ["--noise-sigma", 0.009, "--json", "r.json", "--unexplained", written]
    result = cli.run(*arguments, *options, status=3)
    sentence = {"input": "is the picture as it was; try", "result": "is probably wrong; try"}[written]
    assert sentence in result.stderr
    report = json.loads((here / "r.json").read_text())
    assert report["explained"] is False
    assert report["written"] == written
    same = decode(here / "photo_deblurred.png").array == decode(Path("../photo.png")).array
    assert bool(same.all()) == (written == "input")


def test_known_kernel_is_reported_and_not_refused(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    fake_deblur.image = -scene()
    options = ["--noise-sigma", 0.009, "--kernel", "known.npy", "--json", "r.json"]
    result = cli.run("deblur", "../photo.png", "--no-figure", *options)
    assert "The kernel does not explain the picture" in result.stderr
    assert json.loads((here / "r.json").read_text())["written"] == "result"
    assert (decode(here / "photo_deblurred.png").array != decode(Path("../photo.png")).array).any()


def test_deblur_passes_its_options_on(cli: Any, here: Path, fake_deblur: Any) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    options = "--noise-sigma 0.03 --prior p --e-step posterior --steps 5 --seed 3 --device cpu --boundary valid"
    cli.run("deblur", "../photo.png", *options.split(), "--kernel", "known.npy", "--no-figure", "-o", "out.tif")
    call = fake_deblur.calls[0]
    assert torch.allclose(call["kernel"], gaussian_kernel(7, 1.5))
    assert (call["noise_sigma"], call["prior"], call["e_step"], call["steps"]) == (0.03, "p", "posterior", 5)
    assert (call["seed"], call["device"], call["boundary"]) == (3, "cpu", "valid")
    assert cli.names(here) == ["known.npy", "known.png", "out.tif", "out_kernel.npy", "out_kernel.png"]


@pytest.mark.parametrize("out", ["new/", "new/deeper/", "existing"])
def test_deblur_into_a_folder(cli: Any, here: Path, fake_deblur: Any, out: str) -> None:
    (here / "existing").mkdir()
    cli.run("deblur", "../photo.png", "--no-figure", "--kernel-size", 9, "-o", out)
    assert "photo_deblurred.png" in cli.names(here / out)


def test_deblur_keeps_format_depth_and_transparency(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene
) -> None:
    array = (np.random.default_rng(0).random((40, 48, 4)) * 65535).astype(np.uint16)
    encode(here / "deep.png", array)
    cli.run("deblur", "deep.png", "--no-figure", "--kernel-size", 9)
    np.testing.assert_array_equal(decode(here / "deep_deblurred.png").array, array)
    write_image(here / "a.JPEG", scene())
    cli.run("deblur", "a.JPEG", "--no-figure", "--kernel-size", 9)
    assert Image.open(here / "a_deblurred.JPEG").format == "JPEG"


def test_deblur_measures_against_a_reference(cli: Any, here: Path, fake_deblur: Any, scene: Scene) -> None:
    write_image("sharp.png", (scene() * 0.8))
    result = cli.run(
        "deblur",
        "../photo.png",
        "--kernel-size",
        9,
        "--reference",
        "sharp.png",
        "--json",
        "r.json",
        "--no-figure",
    )
    assert "PSNR" in result.stdout
    report = json.loads((here / "r.json").read_text())
    metrics = report["metrics"]
    assert metrics["result"]["psnr"] == metrics["input"]["psnr"] > 10
    assert f"{metrics['result']['psnr']:.2f} dB" in result.stdout
    assert report["settings"]["seed"] == 0
    assert report["device"] == "cpu"


def test_deblur_measures_exact_results(cli: Any, here: Path, fake_deblur: Any) -> None:
    cli.run("deblur", "../photo.png", "--kernel-size", 9, "--reference", "../photo.png", "--json", "r.json")
    assert json.loads((here / "r.json").read_text())["metrics"]["result"]["psnr"] is None


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["missing.png"], "missing.png does not exist"),
        ([".", "-o", "."], "The results cannot go into . itself"),
        ([".", "--json", "r.json"], "--json belongs to one image and . is a folder"),
        (["../photo.png", "-o", "nowhere/x.png"], "the folder nowhere does not exist"),
        (["../photo.png", "-o", "x.gif"], "does not name an image format"),
        (["../photo.png", "-o", "x"], "does not name an image format"),
        (["../photo.png", "-o", "../photo.png"], "is an input and would be overwritten"),
        (["../photo.png", "--json", "../photo.png"], "is an input and would be overwritten"),
        (["../photo.png", "--json", "."], "it is a folder"),
        (["../photo.png", "--kernel", "missing.npy"], "missing.npy does not exist"),
        (["../photo.png", "--reference", "missing.png"], "missing.png does not exist"),
        (
            ["../photo.png", "--reference", "other.png"],
            "is 20 x 30 grey and the image ../photo.png is 48 x 40 RGB",
        ),
    ],
)
def test_deblur_refuses_before_it_computes(
    cli: Any, here: Path, fake_deblur: Any, scene: Scene, args: list[str], expected: str
) -> None:
    write_image("other.png", scene(30, 20, 1))
    assert expected in cli.sentence("deblur", *args)
    assert not fake_deblur.calls
    assert cli.names(here) == ["other.png"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--kernel-size", "2"], "at least 3 pixels, not 2"),
        (["--kernel-size", "41"], "larger than the image (48 x 40)"),
        (["--device", "cuda", "--kernel-size", "9"], "No CUDA device"),
        (["--prior", "nowhere", "--kernel-size", "9"], "nowhere"),
    ],
)
def test_deblur_with_unusable_settings(
    cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert expected in cli.sentence("deblur", "../photo.png", *args)  # the real method, which refuses at once
    assert cli.names(here) == []


def test_no_write_permission_is_found_before_computing(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # chmod does not stop a test that runs as root
    assert cli.sentence("deblur", "../photo.png", "--kernel-size", 9).endswith(
        "permission denied; choose another place."
    )
    assert not fake_deblur.calls


def test_interruption_writes_nothing(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at = 0
    text = cli.sentence("deblur", "../photo.png", "--kernel-size", 9, "--json", "r.json", status=130)
    assert text == "Interrupted; nothing was written."
    assert cli.names(here) == []


def test_interruption_with_a_checkpoint(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at = 0
    text = cli.sentence("deblur", "../photo.png", "--kernel-size", 9, "--checkpoint", "kept", status=130)
    assert text == "Interrupted; the run is saved in kept, and the same command resumes it."


def test_interruption_while_writing_writes_nothing(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(figure: Figure, path: Path) -> None:
        assert len(list(Path(path).parent.iterdir())) == 3  # image and kernel are there, but not in place
        raise KeyboardInterrupt

    monkeypatch.setattr("latentdem.output.files.save_figure", interrupt)
    text = cli.sentence("deblur", "../photo.png", "--kernel-size", 9, status=130)
    assert text == "Interrupted; nothing was written."
    assert cli.names(here) == []


def test_full_disk_while_writing_writes_nothing(
    cli: Any, here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, array: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert cli.sentence("deblur", "../photo.png", "--kernel-size", 9).endswith("no space left on device.")
    assert cli.names(here) == []


def test_user_errors_of_the_method_are_one_sentence(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = (
        0,
        UserError("Unknown prior [red]x[/red]; give another. " + "long " * 50),
    )
    assert cli.sentence("deblur", "../photo.png").startswith("Unknown prior [red]x[/red]; give another.")


def test_defects_keep_their_traceback(cli: Any, here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = 0, RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        cli.run("deblur", "../photo.png")
