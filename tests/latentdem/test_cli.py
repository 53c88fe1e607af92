from __future__ import annotations

import json
import subprocess
import sys
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
from typer.testing import CliRunner

from latentdem.cli import app
from latentdem.errors import UserError
from latentdem.image_codecs import decode, encode
from latentdem.io import read_image, read_kernel, write_image, write_kernel
from latentdem.motion import gaussian_kernel

Scene = Callable[..., Tensor]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> Path:
    """An empty current folder, with photo.png in the folder above."""
    current = tmp_path / "here"
    current.mkdir()
    monkeypatch.chdir(current)
    write_image(tmp_path / "photo.png", scene())
    return current


def run(*args: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def sentence(*args: object, status: int = 1) -> str:
    """The one line on stderr of a command that fails."""
    lines = run(*args, status=status).stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# deblur


def test_deblur_writes_image_kernel_and_figure_here(here: Path, fake_deblur: Any) -> None:
    result = run("deblur", "../photo.png", "--kernel-size", 9)
    assert names(here) == [
        "photo_deblurred.png",
        "photo_deblurred_figure.png",
        "photo_deblurred_kernel.npy",
        "photo_deblurred_kernel.png",
    ]
    np.testing.assert_array_equal(
        decode(here / "photo_deblurred.png").array, decode(Path("../photo.png")).array
    )
    assert read_kernel(here / "photo_deblurred_kernel.npy")[0, 0, 4, 4] == 1
    for name in names(here):
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


def test_deblur_passes_its_options_on(here: Path, fake_deblur: Any) -> None:
    write_kernel("known", gaussian_kernel(7, 1.5))
    options = "--noise-sigma 0.03 --prior p --e-step posterior --steps 5 --seed 3 --device cpu --boundary valid"
    run("deblur", "../photo.png", *options.split(), "--kernel", "known.npy", "--no-figure", "-o", "out.tif")
    call = fake_deblur.calls[0]
    assert torch.allclose(call["kernel"], gaussian_kernel(7, 1.5))
    assert (call["noise_sigma"], call["prior"], call["e_step"], call["steps"]) == (0.03, "p", "posterior", 5)
    assert (call["seed"], call["device"], call["boundary"]) == (3, "cpu", "valid")
    assert names(here) == ["known.npy", "known.png", "out.tif", "out_kernel.npy", "out_kernel.png"]


@pytest.mark.parametrize("out", ["new/", "new/deeper/", "existing"])
def test_deblur_into_a_folder(here: Path, fake_deblur: Any, out: str) -> None:
    (here / "existing").mkdir()
    run("deblur", "../photo.png", "--no-figure", "--kernel-size", 9, "-o", out)
    assert "photo_deblurred.png" in names(here / out)


def test_deblur_keeps_format_depth_and_transparency(here: Path, fake_deblur: Any, scene: Scene) -> None:
    array = (np.random.default_rng(0).random((40, 48, 4)) * 65535).astype(np.uint16)
    encode(here / "deep.png", array)
    run("deblur", "deep.png", "--no-figure", "--kernel-size", 9)
    np.testing.assert_array_equal(decode(here / "deep_deblurred.png").array, array)
    write_image(here / "a.JPEG", scene())
    run("deblur", "a.JPEG", "--no-figure", "--kernel-size", 9)
    assert Image.open(here / "a_deblurred.JPEG").format == "JPEG"


def test_deblur_measures_against_a_reference(here: Path, fake_deblur: Any, scene: Scene) -> None:
    write_image("sharp.png", (scene() * 0.8))
    result = run(
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


def test_deblur_measures_exact_results(here: Path, fake_deblur: Any) -> None:
    run("deblur", "../photo.png", "--kernel-size", 9, "--reference", "../photo.png", "--json", "r.json")
    assert json.loads((here / "r.json").read_text())["metrics"]["result"]["psnr"] is None


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["missing.png"], "missing.png does not exist"),
        (["."], "is a folder"),
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
    here: Path, fake_deblur: Any, scene: Scene, args: list[str], expected: str
) -> None:
    write_image("other.png", scene(30, 20, 1))
    assert expected in sentence("deblur", *args)
    assert not fake_deblur.calls
    assert names(here) == ["other.png"]


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
    here: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert expected in sentence("deblur", "../photo.png", *args)  # the real method, which refuses at once
    assert names(here) == []


def test_no_write_permission_is_found_before_computing(
    here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # chmod does not stop a test that runs as root
    assert sentence("deblur", "../photo.png", "--kernel-size", 9).endswith(
        "permission denied; choose another place."
    )
    assert not fake_deblur.calls


def test_interruption_writes_nothing(here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at = 0
    text = sentence("deblur", "../photo.png", "--kernel-size", 9, "--json", "r.json", status=130)
    assert text == "Interrupted; nothing was written."
    assert names(here) == []


def test_interruption_while_writing_writes_nothing(
    here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(figure: Figure, path: Path) -> None:
        assert len(list(Path(path).parent.iterdir())) == 3  # image and kernel are there, but not in place
        raise KeyboardInterrupt

    monkeypatch.setattr("latentdem.figures.save_figure", interrupt)
    text = sentence("deblur", "../photo.png", "--kernel-size", 9, status=130)
    assert text == "Interrupted; nothing was written."
    assert names(here) == []


def test_full_disk_while_writing_writes_nothing(
    here: Path, fake_deblur: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, array: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert sentence("deblur", "../photo.png", "--kernel-size", 9).endswith("no space left on device.")
    assert names(here) == []


def test_user_errors_of_the_method_are_one_sentence(here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = (
        0,
        UserError("Unknown prior [red]x[/red]; give another. " + "long " * 50),
    )
    assert sentence("deblur", "../photo.png").startswith("Unknown prior [red]x[/red]; give another.")


def test_defects_keep_their_traceback(here: Path, fake_deblur: Any) -> None:
    fake_deblur.fail_at, fake_deblur.error = 0, RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        run("deblur", "../photo.png")


@pytest.mark.parametrize(
    "args",
    [
        ["deblur"],
        ["deblur", "a.png", "--e-step", "other"],
        ["deblur", "a.png", "--device", "tpu"],
        ["deblur", "a.png", "--steps", "0"],
        ["blur", "a.png"],
        ["blur", "a.png", "-o", "b.png", "--intensity", "1.5"],
        ["evaluate"],
        ["unknown"],
    ],
)
def test_usage_errors(here: Path, args: list[str]) -> None:
    assert "Usage:" in run(*args, status=2).stderr


# blur


@pytest.mark.parametrize("bits", [8, 16])
def test_blur_circular(here: Path, bits: int) -> None:
    array = (np.random.default_rng(0).random((40, 48, 3)) * (2**bits - 1)).astype(f"uint{bits}")
    encode(here / "a.png", array)
    run("blur", "a.png", "-o", "b.png", "--kernel-size", 9, "--noise-sigma", 0.01, "--seed", 4)
    assert names(here) == ["a.png", "b.png", "b_kernel.npy", "b_kernel.png"]
    sharp, blurred, kernel = read_image("a.png"), read_image("b.png"), read_kernel("b_kernel.npy")
    assert blurred.bits == bits
    import latentdem_ext

    error = blurred.pixels - latentdem_ext.blur(sharp.pixels, kernel)
    assert float(error.std()) == pytest.approx(0.01, rel=0.1)


def test_blur_valid_writes_its_reference(here: Path) -> None:
    options = ["--kernel-size", 8, "--boundary", "valid", "--noise-sigma", 0, "--intensity", 0.3]
    run("blur", "../photo.png", "-o", "cases/", *options)
    assert names(here / "cases") == [
        "photo_blurred.png",
        "photo_blurred_kernel.npy",
        "photo_blurred_kernel.png",
        "photo_blurred_reference.png",
    ]
    blurred, reference = (
        read_image(here / "cases" / f"photo_blurred{s}.png").pixels for s in ("", "_reference")
    )
    assert blurred.shape == reference.shape == (1, 3, 33, 41)
    # y[n] reads x[n - (m - 4)], m = 0..7: rows n - 3 to n + 4.
    assert torch.equal(reference, read_image("../photo.png").pixels[..., 3:36, 3:44])


def test_blur_depends_on_the_seed_alone(here: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("blur", "../photo.png", "-o", f"{name}.png", "--kernel-size", 9, "--seed", seed)
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["missing.png", "-o", "b.png"], "does not exist"),
        (["../photo.png", "-o", "b.jpg"], "b.jpg does not end in .png"),
        (["../photo.png", "-o", "../photo.png"], "would be overwritten"),
        (["../photo.png", "-o", "b.png", "--kernel-size", "2"], "at least 3"),
        (["../photo.png", "-o", "b.png", "--kernel-size", "41"], "larger than the image"),
        (
            ["../photo.png", "-o", "b.png", "--kernel-size", "35", "--boundary", "valid"],
            "leaves less than 16 x 16",
        ),
    ],
)
def test_blur_refuses(here: Path, args: list[str], expected: str) -> None:
    assert expected in sentence("blur", *args)
    assert names(here) == []


# evaluate


def test_evaluate_prints_a_table_with_the_mean(here: Path, fake_deblur: Any, scene: Scene) -> None:
    (here / "photos").mkdir()
    for i in range(2):
        write_image(here / "photos" / f"{i}.png", scene(seed=i))
    (here / "photos" / "bad.png").touch()
    result = run("evaluate", "photos", "--kernel-size", 9)
    for text in ("0.png", "1.png", "mean", "PSNR", "MNC"):
        assert text in result.stdout
    assert "Passed over: photos/bad.png is empty." in result.stderr
    assert names(here / "photos_evaluation") == [
        "contact_sheet.png",
        "images",
        "metrics.csv",
        "settings.json",
        "summary.json",
    ]
    from latentdem.metrics import lpips_available

    assert ("LPIPS was not measured" in result.stdout) == (not lpips_available()[0])


def test_evaluate_leaves_parts_out(here: Path, fake_deblur: Any, scene: Scene) -> None:
    Path("photos").mkdir()
    write_image("photos/a.png", scene())
    parts = ("--without", "skipping", "--without", "gluing")
    run("evaluate", "photos", "--kernel-size", 9, "--e-step", "posterior", *parts, "-o", "out")
    assert fake_deblur.calls[0]["without"] == ("gluing", "skipping")
    run("evaluate", "photos", "--kernel-size", 9, "--e-step", "posterior", *parts, "-o", "out")  # resumes
    assert len(fake_deblur.calls) == 1


def test_evaluate_without_a_single_success_fails(here: Path, fake_deblur: Any) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "bad.png").touch()
    assert "is empty" in sentence("evaluate", "photos")


def test_evaluate_interrupted_says_how_to_go_on(here: Path, fake_deblur: Any, scene: Scene) -> None:
    (here / "photos").mkdir()
    for i in range(2):
        write_image(here / "photos" / f"{i}.png", scene(seed=i))
    fake_deblur.fail_at = 1
    text = sentence("evaluate", "photos", "--kernel-size", 9, "-o", "out", status=130)
    assert text == "Interrupted; what is finished is kept in out, and the same command continues."
    fake_deblur.fail_at = None
    run("evaluate", "photos", "--kernel-size", 9, "-o", "out")
    assert len(fake_deblur.calls) == 2
    assert "seed 0 instead of 1" in sentence("evaluate", "photos", "--kernel-size", 9, "-o", "out", "--seed", 1)


def test_evaluate_refuses_a_missing_device(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "No CUDA device" in sentence("evaluate", "..", "--device", "cuda")
    assert names(here) == []


# info and the rest


def test_info() -> None:
    text = run("info").stdout
    for word in ("latentdem", "torch", "device", "threads", "backend reference", "weights", "LPIPS"):
        assert word in text


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
    assert run("--version").stdout == "latentdem 1.2.3\n"


@pytest.mark.parametrize("command", [[], ["deblur"], ["blur"], ["evaluate"], ["info"]])
def test_help_has_an_example(command: list[str]) -> None:
    assert "Example: latentdem" in run(*command, "--help").stdout


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, latentdem.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
